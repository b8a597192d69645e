//! Reads and writes transformers' configs of a BERT that decodes.

use super::{BertDecoderConfig, TextDecoderSpec};
use crate::Result;
use crate::config::{check_only, overlay};
use serde_json::{Value, json};

impl BertDecoderConfig {
    /// Reads the `text_config` of a BLIP. Absent and null fields have transformers' defaults, among them 8
    /// heads.
    ///
    /// # Errors
    /// A field of another type, a setting that is not supported, or those of [`TextDecoderSpec::validate`].
    pub fn from_blip(config: &Value) -> Result<Self> {
        check_only(config, "is_decoder", true.into())?;
        let defaults = Self { num_attention_heads: 8, type_vocab_size: 0, ..Self::default() };
        let read = Self { type_vocab_size: 0, ..overlay(&defaults, config)? };
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' `BlipTextConfig`, without those of special tokens.
    pub fn to_blip(&self, encoder_hidden_size: i64) -> Value {
        let mut config = self.sizes_to_hf();
        config["model_type"] = "blip_text_model".into();
        config["encoder_hidden_size"] = encoder_hidden_size.into();
        config["is_decoder"] = true.into();
        config["projection_dim"] = 768.into();
        config
    }

    /// Reads the config of a `BertLMHeadModel`.
    ///
    /// # Errors
    /// As [`BertDecoderConfig::from_blip`].
    pub fn from_hf(config: &Value) -> Result<Self> {
        check_only(config, "position_embedding_type", "absolute".into())?;
        check_only(config, "is_decoder", true.into())?;
        check_only(config, "tie_word_embeddings", true.into())?;
        let read: Self = overlay(&Self { vocab_size: 30522, type_vocab_size: 2, ..Self::default() }, config)?;
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' `BertConfig` of a decoder with cross-attention.
    pub fn to_hf(&self) -> Value {
        let mut config = self.sizes_to_hf();
        config["model_type"] = "bert".into();
        config["type_vocab_size"] = self.type_vocab_size.into();
        config["is_decoder"] = true.into();
        config["add_cross_attention"] = true.into();
        config
    }

    fn sizes_to_hf(&self) -> Value {
        json!({
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let config = BertDecoderConfig { hidden_size: 96, vocab_size: 100, ..BertDecoderConfig::default() };
        assert_eq!(BertDecoderConfig::from_blip(&config.to_blip(64)).unwrap(), config);
        let config = BertDecoderConfig { type_vocab_size: 2, ..config };
        assert_eq!(BertDecoderConfig::from_hf(&config.to_hf()).unwrap(), config);
    }

    #[test]
    fn the_defaults_are_those_of_transformers() {
        let blip = BertDecoderConfig::from_blip(&json!({})).unwrap();
        assert_eq!((blip.num_attention_heads, blip.vocab_size, blip.layer_norm_eps), (8, 30524, 1e-12));
        let message = BertDecoderConfig::from_blip(&json!({"is_decoder": false})).unwrap_err().to_string();
        assert!(message.contains("is_decoder is false"), "{message}");
    }
}
