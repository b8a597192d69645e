//! transformers' configs of vision-language models.

use super::config::{ConnectorConfig, FeatureSelection, VlmConfig, VlmFamily};
use crate::{Error, Result};
use mm_core::nn::Activation;
use mm_text::decoder::LlamaConfig;
use mm_vision::{VitConfig, VitVariant};
use serde_json::{Value, json};

/// The families, of which transformers has a class each.
const FAMILIES: [VlmFamily; 3] = [VlmFamily::SmolVlm, VlmFamily::Idefics3, VlmFamily::Llava];

/// The names of a family's classes.
struct Classes {
    model: &'static str,
    processor: &'static str,
    /// The `model_type` of the vision_config.
    vision: &'static str,
}

fn classes(family: VlmFamily) -> Classes {
    match family {
        VlmFamily::SmolVlm => Classes {
            model: "SmolVLMForConditionalGeneration",
            processor: "SmolVLMProcessor",
            vision: "smolvlm_vision",
        },
        VlmFamily::Idefics3 => Classes {
            model: "Idefics3ForConditionalGeneration",
            processor: "Idefics3Processor",
            vision: "idefics3_vision",
        },
        VlmFamily::Llava => Classes {
            model: "LlavaForConditionalGeneration",
            processor: "LlavaProcessor",
            vision: "clip_vision_model",
        },
    }
}

/// The family of a config.
pub(super) fn family(config: &Value) -> Result<VlmFamily> {
    let model_type = config["model_type"].as_str().unwrap_or("missing");
    let found = FAMILIES.into_iter().find(|family| family.model_type() == model_type);
    let family = found.ok_or_else(|| {
        let known = FAMILIES.map(VlmFamily::model_type).join(", ");
        Error::Model(format!("model_type is {model_type}: vision-language models are of {known}"))
    })?;
    let class = classes(family).model;
    match config["architectures"][0].as_str() {
        Some(other) if other != class => {
            Err(Error::Model(format!("architectures names {other}: of {model_type} {class} is offered")))
        }
        _ => Ok(family),
    }
}

/// Reads the `config.json` of a model.
pub(super) fn read(config: &Value) -> Result<VlmConfig> {
    let family = family(config)?;
    for part in ["vision_config", "text_config"] {
        if !config[part].is_object() {
            return Err(Error::Model(format!("{part} is {}: expected an object", config[part])));
        }
    }
    let mut text = LlamaConfig::from_hf(&config["text_config"])?;
    // Older files say so of the text model alone, newer ones of both.
    text.tie_word_embeddings |= config["tie_word_embeddings"] == true;
    let (vision, vision_use_head, connector) = match family {
        VlmFamily::SmolVlm | VlmFamily::Idefics3 => {
            let vision = idefics3_vision(&config["vision_config"])?;
            let scale_factor = match &config["scale_factor"] {
                Value::Null => 2,
                given => given.as_i64().ok_or_else(|| wrong("scale_factor", given, "a number"))?,
            };
            (vision, false, ConnectorConfig::PixelShuffle { scale_factor })
        }
        VlmFamily::Llava => llava_vision(config)?,
    };
    let ids = [&config["image_token_id"], &config["image_token_index"]];
    let id = ids.into_iter().find(|id| !id.is_null()).unwrap_or(&Value::Null);
    let image_token_id = id.as_u64().and_then(|id| id.try_into().ok());
    let image_token_id = image_token_id.ok_or_else(|| wrong("image_token_id", id, "the id of a token"))?;
    let read = VlmConfig { family, vision, vision_use_head, text, connector, image_token_id };
    read.validate()?;
    Ok(read)
}

fn wrong(name: &str, given: &Value, expected: &str) -> Error {
    Error::Model(format!("{name} is {given}: expected {expected}"))
}

/// The tower of Idefics3: SigLIP's, with other defaults.
fn idefics3_vision(given: &Value) -> Result<VitConfig> {
    let known = ["idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm", "siglip_vision_model"];
    if let Some(other) = given["model_type"].as_str().filter(|name| !known.contains(name)) {
        return Err(Error::Model(format!(
            "model_type of the vision_config is {other}: it must be {}",
            known[0]
        )));
    }
    let defaults = VitConfig {
        variant: VitVariant::Siglip,
        hidden_size: 1152,
        num_attention_heads: 16,
        hidden_act: Activation::GeluPytorchTanh,
        layer_norm_eps: 1e-6,
        ..VitConfig::default()
    };
    let mut vision = defaults.to_hf();
    for (name, value) in given.as_object().into_iter().flatten() {
        if name != "model_type" && name != "vision_use_head" && !value.is_null() {
            vision[name] = value.clone();
        }
    }
    Ok(VitConfig::from_hf(&vision, VitVariant::Siglip)?)
}

/// The tower of a LLaVA, whether it has a head that is not used, and the connector.
fn llava_vision(config: &Value) -> Result<(VitConfig, bool, ConnectorConfig)> {
    let given = &config["vision_config"];
    let variant = match given["model_type"].as_str() {
        None | Some("clip_vision_model") => VitVariant::Clip,
        Some("siglip_vision_model") => VitVariant::Siglip,
        Some(other) => {
            return Err(Error::Model(format!(
                "model_type of the vision_config is {other}: offered are clip_vision_model and \
                 siglip_vision_model"
            )));
        }
    };
    let mut vision = given.clone();
    vision["vision_use_head"] = Value::Null; // a tower without a head is offered here
    let vision_use_head = variant == VitVariant::Siglip && given["vision_use_head"] != false;
    let layer = match &config["vision_feature_layer"] {
        Value::Null => -2,
        given => given.as_i64().ok_or_else(|| wrong("vision_feature_layer", given, "one layer"))?,
    };
    let selection = match &config["vision_feature_select_strategy"] {
        Value::Null => FeatureSelection::Default,
        given => serde_json::from_value(given.clone())
            .map_err(|_| wrong("vision_feature_select_strategy", given, "default or full"))?,
    };
    let activation = match &config["projector_hidden_act"] {
        Value::Null => Activation::Gelu,
        given => serde_json::from_value(given.clone())
            .map_err(|error| Error::Model(format!("projector_hidden_act is {given}: {error}")))?,
    };
    let bias = config["multimodal_projector_bias"] != false;
    let connector = ConnectorConfig::Mlp { activation, bias, layer, selection };
    Ok((VitConfig::from_hf(&vision, variant)?, vision_use_head, connector))
}

/// Writes the `config.json` of a model.
pub(super) fn write(config: &VlmConfig) -> Value {
    let classes = classes(config.family);
    let mut vision = config.vision.to_hf();
    let mut json = json!({
        "architectures": [classes.model],
        "model_type": config.family.model_type(),
        "text_config": config.text.to_hf(),
        "tie_word_embeddings": config.text.tie_word_embeddings,
    });
    match config.connector {
        ConnectorConfig::PixelShuffle { scale_factor } => {
            vision["model_type"] = classes.vision.into();
            json["image_token_id"] = config.image_token_id.into();
            json["scale_factor"] = scale_factor.into();
        }
        ConnectorConfig::Mlp { activation, bias, layer, selection } => {
            if config.vision.variant == VitVariant::Siglip {
                vision["vision_use_head"] = config.vision_use_head.into();
            }
            json["image_token_index"] = config.image_token_id.into();
            json["image_seq_length"] = json!(config.tile_tokens(config.vision.image_size).unwrap_or(0));
            json["projector_hidden_act"] = activation.name().into();
            json["multimodal_projector_bias"] = bias.into();
            json["vision_feature_layer"] = layer.into();
            json["vision_feature_select_strategy"] = json!(selection);
        }
    }
    json["vision_config"] = vision;
    json
}

/// Writes the `processor_config.json` of a model whose tiles become `tile_tokens` tokens.
pub(super) fn write_processor(config: &VlmConfig, image_token: &str, tile_tokens: usize) -> Value {
    let processor_class = classes(config.family).processor;
    match config.connector {
        ConnectorConfig::PixelShuffle { .. } => {
            json!({ "processor_class": processor_class, "image_seq_len": tile_tokens })
        }
        ConnectorConfig::Mlp { selection, .. } => json!({
            "processor_class": processor_class,
            "image_token": image_token,
            "patch_size": config.vision.patch_size,
            "num_additional_image_tokens": u8::from(config.vision.variant == VitVariant::Clip),
            "vision_feature_select_strategy": selection,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> Value {
        json!({
            "model_type": "llama",
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        })
    }

    fn smolvlm() -> Value {
        json!({
            "model_type": "smolvlm",
            "vision_config": {"model_type": "smolvlm_vision", "image_size": 512, "patch_size": 16},
            "text_config": llama(),
            "image_token_id": 9,
            "scale_factor": 4,
        })
    }

    fn llava() -> Value {
        json!({
            "model_type": "llava",
            "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
            "text_config": llama(),
            "image_token_index": 9,
        })
    }

    fn with(mut config: Value, changes: Value) -> Value {
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        config
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let siglip = json!({"model_type": "siglip_vision_model", "vision_use_head": false});
        let qwen2 = json!({"model_type": "qwen2", "tie_word_embeddings": true});
        let interleave = json!({
            "vision_config": siglip,
            "text_config": qwen2,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "projector_hidden_act": "gelu_pytorch_tanh",
            "multimodal_projector_bias": false,
        });
        let idefics3 = with(smolvlm(), json!({"model_type": "idefics3", "tie_word_embeddings": true}));
        for config in [smolvlm(), idefics3, llava(), with(llava(), interleave)] {
            let config = read(&config).unwrap();
            assert_eq!(read(&write(&config)).unwrap(), config);
        }
    }

    #[test]
    fn the_tokens_of_an_image_are_those_of_published_models() {
        let smolvlm = read(&smolvlm()).unwrap();
        assert_eq!((smolvlm.tile_tokens(512).unwrap(), smolvlm.vision.hidden_size), (64, 1152));
        assert_eq!(smolvlm.tile_tokens(256).unwrap(), 16);
        let llava15 = read(&llava()).unwrap();
        assert_eq!(llava15.tile_tokens(336).unwrap(), 576);
        assert_eq!(llava15.feature_layer(), 11);
        let full = with(llava(), json!({"vision_feature_select_strategy": "full"}));
        assert_eq!(read(&full).unwrap().tile_tokens(336).unwrap(), 577);
        for (config, side) in [(&smolvlm, 500), (&llava15, 224)] {
            assert!(config.tile_tokens(side).is_err());
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_with_its_value() {
        for (config, expected) in [
            (json!({"model_type": "paligemma"}), "are of smolvlm, idefics3, llava"),
            (with(llava(), json!({"architectures": ["LlavaModel"]})), "architectures names LlavaModel"),
            (with(llava(), json!({"text_config": null})), "text_config is null"),
            (with(llava(), json!({"vision_config": {"model_type": "pixtral"}})), "is pixtral"),
            (with(llava(), json!({"vision_feature_layer": [-2, -5]})), "vision_feature_layer is [-2,-5]"),
            (with(llava(), json!({"vision_feature_layer": -14})), "-14: it must be from -13 to 12"),
            (with(llava(), json!({"vision_feature_select_strategy": "cls"})), "expected default or full"),
            (with(llava(), json!({"projector_hidden_act": "mish"})), "projector_hidden_act is \"mish\""),
            (with(llava(), json!({"image_token_index": null})), "image_token_id is null"),
            (with(llava(), json!({"image_token_index": 40_000})), "image_token_id is 40000"),
            (with(smolvlm(), json!({"scale_factor": 5})), "no multiple of scale_factor 5"),
            (with(smolvlm(), json!({"scale_factor": "2"})), "scale_factor is \"2\""),
            (with(smolvlm(), json!({"vision_config": {"model_type": "vit"}})), "vision_config is vit"),
            (with(smolvlm(), json!({"text_config": {"model_type": "gemma"}})), "model_type is gemma"),
        ] {
            let message = read(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
