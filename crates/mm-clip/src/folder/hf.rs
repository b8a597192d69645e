//! `config.json`: of transformers, and this project's own for pairs of towers without a transformers class.

use super::Architecture;
use crate::{ClipConfig, ContrastiveLoss, Error, Result};
use mm_core::checkpoint::Weights;
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_text::{BertConfig, BertPooling, ClipTextConfig, ClipTextVariant, TextTowerConfig, Tokenizer};
use mm_vision::{ImageTowerConfig, VitConfig, VitVariant};
use serde_json::{Value, json};

/// The `model_type` of pairs without a transformers class.
const OWN_TYPE: &str = "mm-clip";

/// The supported `model_type`s.
const KNOWN: &str = "clip, siglip, clip_text_model, clip_vision_model, siglip_text_model, \
                     siglip_vision_model, bert, vit and mm-clip";

/// transformers' default of `projection_dim`.
const PROJECTION_DIM: i64 = 512;

/// Reads the `config.json` of `folder`. The tensors `weights` show what a config leaves open: whether a
/// single tower has a projection and a pooler.
///
/// # Errors
/// The file is missing or not JSON, its architecture is not supported, or a field is out of range.
pub(super) fn read(folder: &HfFolder, weights: &Weights) -> Result<Architecture> {
    read_architecture(folder, weights).map_err(|error| error.at(&folder.file(CONFIG_FILE)))
}

fn read_architecture(folder: &HfFolder, weights: &Weights) -> Result<Architecture> {
    let config: Value = folder.config()?;
    if let Some(pair) = read_pair(&config)? {
        return Ok(Architecture::Clip(pair));
    }
    let projection =
        |name: &str| weights.shape(name).and_then(|shape| shape.first()).map(|&rows| rows as i64);
    let image = |variant| -> Result<Architecture> {
        let mut vit = VitConfig::from_hf(&config, variant)?;
        vit.pooler = variant == VitVariant::Vit && weights.has_suffix("pooler.dense.weight");
        Ok(Architecture::Image {
            tower: ImageTowerConfig::Vit(vit),
            projection: projection("visual_projection.weight"),
        })
    };
    let text = |variant| -> Result<Architecture> {
        let tower = TextTowerConfig::Clip(ClipTextConfig::from_hf(&config, variant)?);
        Ok(Architecture::Text { tower, projection: projection("text_projection.weight") })
    };
    match config["model_type"].as_str() {
        Some("clip_vision_model") => image(VitVariant::Clip),
        Some("siglip_vision_model") => image(VitVariant::Siglip),
        Some("vit") => image(VitVariant::Vit),
        Some("clip_text_model") => text(ClipTextVariant::Clip),
        Some("siglip_text_model") => text(ClipTextVariant::Siglip),
        Some("bert") => {
            let has_pooler = weights.has_suffix("pooler.dense.weight");
            let of_weights = if has_pooler { BertPooling::Pooler } else { BertPooling::Cls };
            let pooling = BertPooling::from_sentence_transformers(folder.path())?.unwrap_or(of_weights);
            let tower = TextTowerConfig::Bert(BertConfig::from_hf(&config, pooling)?);
            Ok(Architecture::Text { tower, projection: None })
        }
        Some("siglip2") => Err(Error::Model(
            "model_type siglip2 is the variant with variable resolution (NaFlex), which is not supported; \
             those of fixed resolution are model_type siglip"
                .to_owned(),
        )),
        Some(other) => {
            Err(Error::Model(format!("model_type {other} is not supported; supported are {KNOWN}")))
        }
        None => Err(Error::Model(format!("model_type is missing; supported are {KNOWN}"))),
    }
}

/// The pair of towers in a `config.json`; none if it is of another model.
///
/// # Errors
/// A field is out of range.
pub(super) fn read_pair(config: &Value) -> Result<Option<ClipConfig>> {
    let pair = |image_variant, text_variant, loss| -> Result<Option<ClipConfig>> {
        let image = VitConfig::from_hf(&nested(config, "vision_config")?, image_variant)?;
        let text = ClipTextConfig::from_hf(&nested(config, "text_config")?, text_variant)?;
        let embed_dim = match loss {
            ContrastiveLoss::InfoNce => projection_dim(config)?,
            ContrastiveLoss::Siglip => text.output_width(),
        };
        let (image, text) = (ImageTowerConfig::Vit(image), TextTowerConfig::Clip(text));
        Ok(Some(ClipConfig { loss, ..ClipConfig::new(embed_dim, image, text) }))
    };
    match config["model_type"].as_str() {
        Some("clip") => pair(VitVariant::Clip, ClipTextVariant::Clip, ContrastiveLoss::InfoNce),
        Some("siglip") => pair(VitVariant::Siglip, ClipTextVariant::Siglip, ContrastiveLoss::Siglip),
        Some(OWN_TYPE) => {
            let own: ClipConfig = serde_json::from_value(config["clip"].clone())
                .map_err(|error| Error::Model(format!("clip: {error}")))?;
            own.image.validate()?;
            own.text.validate()?;
            Ok(Some(own))
        }
        _ => Ok(None),
    }
}

/// The nested config `name`. Files from before transformers 4.27 repeat it as `NAME_dict`, which takes
/// precedence.
fn nested(config: &Value, name: &str) -> Result<Value> {
    let mut fields = serde_json::Map::new();
    for name in [name, &format!("{name}_dict")] {
        match &config[name] {
            Value::Null => {}
            Value::Object(given) => fields.extend(given.clone()),
            other => return Err(Error::Model(format!("{name} is {other}: it must be an object"))),
        }
    }
    Ok(Value::Object(fields))
}

fn projection_dim(config: &Value) -> Result<i64> {
    match &config["projection_dim"] {
        Value::Null => Ok(PROJECTION_DIM),
        given => given
            .as_i64()
            .ok_or_else(|| Error::Model(format!("projection_dim is {given}: it must be an integer"))),
    }
}

/// `config.json` for `architecture`: of transformers if it has a class for it, else this project's own.
pub(super) fn write(architecture: &Architecture, tokenizer: Option<&Tokenizer>) -> Result<Value> {
    Ok(match architecture {
        Architecture::Clip(config) => pair_config(config, tokenizer)?,
        Architecture::Image { tower: ImageTowerConfig::Vit(vit), projection } => {
            let class = match (vit.variant, projection) {
                (VitVariant::Clip, Some(_)) => "CLIPVisionModelWithProjection",
                (VitVariant::Clip, None) => "CLIPVisionModel",
                (VitVariant::Siglip, _) => "SiglipVisionModel",
                (VitVariant::Vit, _) => "ViTModel",
                (VitVariant::Blip, _) => "BlipVisionModel",
            };
            with(vit.to_hf(), json!({ "architectures": [class], "projection_dim": projection }))
        }
        Architecture::Text { tower: TextTowerConfig::Clip(text), projection } => {
            let class = match (text.variant, projection) {
                (ClipTextVariant::Clip, Some(_)) => "CLIPTextModelWithProjection",
                (ClipTextVariant::Clip, None) => "CLIPTextModel",
                (ClipTextVariant::Siglip, _) => "SiglipTextModel",
            };
            with(
                text_config(text, tokenizer),
                json!({ "architectures": [class], "projection_dim": projection }),
            )
        }
        Architecture::Text { tower: TextTowerConfig::Bert(bert), .. } => {
            with(bert.to_hf(), json!({ "architectures": ["BertModel"] }))
        }
        Architecture::Image { .. } => {
            return Err(Error::Model(
                "transformers has no format for a single ResNet of this kind: save it within its CLIP"
                    .to_owned(),
            ));
        }
    })
}

/// This project's own `config.json` for `config`, which represents any pair.
pub(super) fn write_own(config: &ClipConfig) -> Result<Value> {
    let clip = serde_json::to_value(config).map_err(|error| Error::Model(error.to_string()))?;
    Ok(json!({ "model_type": OWN_TYPE, "clip": clip }))
}

/// Whether a `config.json` is this project's own.
pub(super) fn is_own(config: &Value) -> bool {
    config["model_type"] == OWN_TYPE
}

fn pair_config(config: &ClipConfig, tokenizer: Option<&Tokenizer>) -> Result<Value> {
    let own = || write_own(config);
    let (ImageTowerConfig::Vit(image), TextTowerConfig::Clip(text)) = (&config.image, &config.text) else {
        return own();
    };
    if !config.image_projection || !config.text_projection {
        return own();
    }
    let (model_type, class) = match (image.variant, text.variant, config.loss) {
        (VitVariant::Clip, ClipTextVariant::Clip, ContrastiveLoss::InfoNce) => ("clip", "CLIPModel"),
        (VitVariant::Siglip, ClipTextVariant::Siglip, ContrastiveLoss::Siglip) => ("siglip", "SiglipModel"),
        _ => return own(),
    };
    let width = json!({ "projection_dim": config.embed_dim });
    Ok(json!({
        "architectures": [class],
        "model_type": model_type,
        "projection_dim": config.embed_dim,
        "text_config": with(text_config(text, tokenizer), width.clone()),
        "vision_config": with(image.to_hf(), width),
    }))
}

fn text_config(text: &ClipTextConfig, tokenizer: Option<&Tokenizer>) -> Value {
    match tokenizer {
        // If the largest id of a text is always its end token, both mean the same; the id is the newer way.
        Some(tokenizer)
            if text.variant == ClipTextVariant::Clip
                && tokenizer.eos_is_largest()
                && text.pooled_token().is_none() =>
        {
            let text = ClipTextConfig { eos_token_id: tokenizer.eos_id().into(), ..text.clone() };
            text.to_hf(tokenizer.bos_id(), tokenizer.pad_id())
        }
        Some(tokenizer) => text.to_hf(tokenizer.bos_id(), tokenizer.pad_id()),
        None => text.to_hf(None, 0),
    }
}

/// `config` with the non-null fields of `more`.
fn with(mut config: Value, more: Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        config[name] = value.clone();
    }
    config
}
