//! Reads and writes transformers' config of CLIP's and SigLIP's text tower.

use crate::config::overlay;
use crate::{ClipTextConfig, ClipTextVariant, Error, Result};
use mm_core::nn::Activation;
use serde_json::{Value, json};

impl ClipTextVariant {
    /// transformers' `model_type` of the tower.
    fn model_type(self) -> &'static str {
        match self {
            Self::Clip => "clip_text_model",
            Self::Siglip => "siglip_text_model",
        }
    }

    /// transformers' defaults of the family: its base model.
    fn defaults(self) -> ClipTextConfig {
        match self {
            Self::Clip => ClipTextConfig::default(),
            Self::Siglip => ClipTextConfig {
                variant: self,
                vocab_size: 32000,
                hidden_size: 768,
                intermediate_size: 3072,
                num_attention_heads: 12,
                max_position_embeddings: 64,
                hidden_act: Activation::GeluPytorchTanh,
                layer_norm_eps: 1e-6,
                ..ClipTextConfig::default()
            },
        }
    }
}

impl ClipTextConfig {
    /// Reads the `config.json` of a text tower of the family `variant`, or the `text_config` of a pair, as
    /// transformers writes it: absent and null fields have the family's defaults, and other fields are
    /// ignored. The `text_config` of old files has no `model_type`, so the caller passes the family.
    ///
    /// # Errors
    /// The `model_type` of another tower, a field of another type, or those of [`ClipTextConfig::validate`].
    pub fn from_hf(config: &Value, variant: ClipTextVariant) -> Result<Self> {
        if let Some(given) = config["model_type"].as_str().filter(|given| *given != variant.model_type()) {
            let expected = variant.model_type();
            return Err(Error::Config(format!(
                "model_type of the text_config is {given}: it must be {expected}"
            )));
        }
        let mut config = config.clone();
        // Some configs have a list of end tokens. A tower pools one.
        if let Some([one]) = config["eos_token_id"].as_array().map(Vec::as_slice) {
            config["eos_token_id"] = one.clone();
        }
        let mut read = Self { variant, ..overlay(&variant.defaults(), &config)? };
        // `overlay` skips a field that is absent by default.
        read.projection_size = match (variant, &config["projection_size"]) {
            (ClipTextVariant::Siglip, Value::Number(width)) => width.as_i64(),
            _ => None,
        };
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' config of the family, with the begin and padding tokens of the tokenizer.
    pub fn to_hf(&self, bos: Option<u32>, pad: u32) -> Value {
        let mut config = json!({
            "model_type": self.variant.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "bos_token_id": bos,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": pad,
        });
        if self.variant == ClipTextVariant::Siglip {
            config["projection_size"] = self.output_width().into();
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_null_fields_have_the_defaults_of_the_family() {
        let clip = json!({"hidden_size": 768, "num_attention_heads": 12, "eos_token_id": null,
                          "attention_dropout": 0.1});
        let clip = ClipTextConfig::from_hf(&clip, ClipTextVariant::Clip).unwrap();
        assert_eq!((clip.hidden_size, clip.eos_token_id, clip.max_position_embeddings), (768, 49407, 77));
        let siglip =
            ClipTextConfig::from_hf(&json!({"projection_size": null}), ClipTextVariant::Siglip).unwrap();
        assert_eq!((siglip.vocab_size, siglip.output_width(), siglip.layer_norm_eps), (32000, 768, 1e-6));
    }

    #[test]
    fn the_end_token_may_stand_in_a_list_or_be_the_legacy_one() {
        let eos =
            |eos: Value| ClipTextConfig::from_hf(&json!({ "eos_token_id": eos }), ClipTextVariant::Clip);
        assert_eq!(eos(json!([49407])).unwrap().pooled_token(), Some(49407));
        assert_eq!(eos(json!(ClipTextConfig::LARGEST_ID)).unwrap().pooled_token(), None);
        assert!(eos(json!([1, 2])).unwrap_err().to_string().contains("text config"));
        assert!(eos(json!(60000)).unwrap_err().to_string().contains("eos_token_id"));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for variant in [ClipTextVariant::Clip, ClipTextVariant::Siglip] {
            let config =
                ClipTextConfig { hidden_size: 96, hidden_act: Activation::Relu, ..variant.defaults() };
            let read = ClipTextConfig::from_hf(&config.to_hf(Some(5), 1), variant).unwrap();
            assert_eq!(read.output_width(), config.output_width());
            assert_eq!(ClipTextConfig { projection_size: None, ..read }, config);
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_with_its_value() {
        let message =
            |config: Value| ClipTextConfig::from_hf(&config, ClipTextVariant::Clip).unwrap_err().to_string();
        assert!(message(json!({"model_type": "bert"})).contains("is bert: it must be clip_text_model"));
        assert!(message(json!({"hidden_size": 100})).contains("num_attention_heads"));
        let unknown = message(json!({"hidden_act": "mish"}));
        for name in ["mish", "quick_gelu", "gelu", "relu"] {
            assert!(unknown.contains(&format!("`{name}`")), "{unknown}");
        }
    }
}
