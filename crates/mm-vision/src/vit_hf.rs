//! Reads and writes transformers' config of a ViT.

use crate::error::{Error, Result};
use crate::vit_config::{VitConfig, VitVariant};
use mm_core::hf::overlay;
use mm_core::nn::Activation;
use serde_json::{Value, json};

impl VitVariant {
    /// transformers' `model_type` of the tower.
    fn model_type(self) -> &'static str {
        match self {
            Self::Clip => "clip_vision_model",
            Self::Siglip => "siglip_vision_model",
            Self::Vit => "vit",
            Self::Blip => "blip_vision_model",
        }
    }

    /// transformers' defaults of the family: its base model.
    fn defaults(self) -> VitConfig {
        let clip = VitConfig { variant: self, ..VitConfig::default() };
        match self {
            Self::Clip => clip,
            Self::Siglip => VitConfig {
                patch_size: 16,
                hidden_act: Activation::GeluPytorchTanh,
                layer_norm_eps: 1e-6,
                ..clip
            },
            Self::Vit => {
                VitConfig { patch_size: 16, hidden_act: Activation::Gelu, layer_norm_eps: 1e-12, ..clip }
            }
            Self::Blip => VitConfig { patch_size: 16, hidden_act: Activation::Gelu, image_size: 384, ..clip },
        }
    }
}

impl VitConfig {
    /// Reads the `config.json` of a tower of the family `variant`, or the `vision_config` of a pair, as
    /// transformers writes it: absent and null fields have the family's defaults, and other fields are
    /// ignored. The `vision_config` of old files has no `model_type`, so the caller passes the family.
    ///
    /// A config does not contain whether its ViT has a pooler: `pooler` is false, and must be set if the
    /// checkpoint has `pooler.dense.weight`.
    ///
    /// # Errors
    /// The `model_type` of another tower, a field of another type, a setting that is not supported, or those
    /// of [`VitConfig::validate`].
    pub fn from_hf(config: &Value, variant: VitVariant) -> Result<Self> {
        let wrong = |text: String| Err(Error::Config(text));
        match (config["model_type"].as_str(), variant.model_type()) {
            (Some("siglip2_vision_model"), _) => {
                let reason = "needs images of variable resolution (NaFlex), which is not offered";
                return wrong(format!(
                    "model_type siglip2_vision_model {reason}: take a checkpoint of fixed resolution"
                ));
            }
            (Some(given), expected) if given != expected => {
                return wrong(format!("model_type of the vision_config is {given}: it must be {expected}"));
            }
            _ => {}
        }
        check_offered(config, variant)?;
        let config = with_squares(config)?;
        let given = overlay(&variant.defaults(), &config)
            .map_err(|error| Error::Config(format!("vision_config: {error}")))?;
        let config = Self { variant, ..given };
        config.validate()?;
        Ok(config)
    }

    /// The fields of transformers' config of the family, which has none for `patch_dropout` and `pooler`.
    pub fn to_hf(&self) -> Value {
        json!({
            "model_type": self.variant.model_type(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_channels": 3,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
        })
    }
}

/// Refuses settings of transformers that are not supported here.
fn check_offered(config: &Value, variant: VitVariant) -> Result<()> {
    let only = |name: &str, offered: Value| match &config[name] {
        Value::Null => Ok(()),
        given if *given == offered => Ok(()),
        given => Err(Error::Config(format!("{name} is {given}: only {offered} is offered"))),
    };
    only("num_channels", 3.into())?;
    match variant {
        VitVariant::Clip | VitVariant::Blip => Ok(()),
        VitVariant::Siglip => only("vision_use_head", true.into()),
        VitVariant::Vit => {
            only("qkv_bias", true.into())?;
            only("pooler_act", "tanh".into())?;
            let width = match &config["hidden_size"] {
                Value::Null => variant.defaults().hidden_size.into(),
                given => given.clone(),
            };
            only("pooler_output_size", width)
        }
    }
}

/// `config` with sides that are written as height and width as one number.
fn with_squares(config: &Value) -> Result<Value> {
    let mut config = config.clone();
    for name in ["image_size", "patch_size"] {
        match config[name].as_array().map(Vec::as_slice) {
            None => {}
            Some([height, width]) if height == width => config[name] = height.clone(),
            Some(_) => {
                return Err(Error::Config(format!("{name} is {}: only squares are offered", config[name])));
            }
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(config: Value, variant: VitVariant) -> String {
        VitConfig::from_hf(&config, variant).unwrap_err().to_string()
    }

    #[test]
    fn absent_and_null_fields_have_the_defaults_of_the_family() {
        let clip =
            json!({"hidden_size": 1024, "num_attention_heads": 16, "dtype": "float32", "patch_size": null});
        let clip = VitConfig::from_hf(&clip, VitVariant::Clip).unwrap();
        assert_eq!((clip.hidden_size, clip.patch_size, clip.layer_norm_eps), (1024, 32, 1e-5));
        let siglip =
            VitConfig::from_hf(&json!({"model_type": "siglip_vision_model"}), VitVariant::Siglip).unwrap();
        assert_eq!(
            (siglip.variant, siglip.patch_size, siglip.layer_norm_eps),
            (VitVariant::Siglip, 16, 1e-6)
        );
        let vit =
            VitConfig::from_hf(&json!({"model_type": "vit", "image_size": [384, 384]}), VitVariant::Vit)
                .unwrap();
        assert_eq!((vit.hidden_act, vit.image_size, vit.layer_norm_eps), (Activation::Gelu, 384, 1e-12));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for variant in [VitVariant::Clip, VitVariant::Siglip, VitVariant::Vit, VitVariant::Blip] {
            let config = VitConfig {
                hidden_size: 96,
                image_size: 48,
                hidden_act: Activation::Relu,
                ..variant.defaults()
            };
            assert_eq!(VitConfig::from_hf(&config.to_hf(), variant).unwrap(), config);
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_with_its_value() {
        let cases = [
            (json!({"model_type": "dinov2"}), VitVariant::Clip, "is dinov2: it must be clip_vision_model"),
            (json!({"model_type": "siglip2_vision_model"}), VitVariant::Siglip, "NaFlex"),
            (json!({"vision_use_head": false}), VitVariant::Siglip, "vision_use_head is false"),
            (json!({"qkv_bias": false}), VitVariant::Vit, "qkv_bias is false"),
            (
                json!({"pooler_act": "relu"}),
                VitVariant::Vit,
                "pooler_act is \"relu\": only \"tanh\" is offered",
            ),
            (
                json!({"pooler_output_size": 512}),
                VitVariant::Vit,
                "pooler_output_size is 512: only 768 is offered",
            ),
            (json!({"num_channels": 1}), VitVariant::Clip, "num_channels is 1"),
            (json!({"image_size": [224, 160]}), VitVariant::Vit, "image_size is [224,160]: only squares"),
            (
                json!({"hidden_size": "wide"}),
                VitVariant::Clip,
                "vision_config: invalid type: string \"wide\"",
            ),
            (json!({"image_size": -1}), VitVariant::Clip, "image_size is -1"),
        ];
        for (config, variant, expected) in cases {
            let message = message(config, variant);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn an_unknown_activation_is_refused_with_those_known() {
        let message = message(json!({"hidden_act": "mish"}), VitVariant::Clip);
        for name in ["mish", "quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] {
            assert!(message.contains(&format!("`{name}`")), "{message}");
        }
    }
}
