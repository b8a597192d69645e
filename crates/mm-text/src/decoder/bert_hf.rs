//! Reads and writes transformers' configs of a BERT that decodes.

use super::{BertDecoderConfig, SpecialTokens, TextDecoderSpec, token_id};
use crate::Result;
use crate::config::{check_only, overlay};
use serde_json::{Value, json};

/// BERT's and BLIP's defaults of special tokens.
const BOS: u32 = 30522;
const SEP: u32 = 102;

impl SpecialTokens {
    /// Those of the `text_config` of a BLIP. Its texts begin with `bos_token_id` and end with `sep_token_id`;
    /// transformers never uses the `eos_token_id`.
    pub fn from_blip(config: &Value) -> Self {
        Self {
            start: Some(token_id(config, "bos_token_id").unwrap_or(BOS)),
            end: token_id(config, "sep_token_id").unwrap_or(SEP),
            pad: token_id(config, "pad_token_id").unwrap_or(0),
        }
    }
}

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

    /// The fields of transformers' `BlipTextConfig`.
    pub fn to_blip(&self, encoder_hidden_size: i64, tokens: &SpecialTokens) -> Value {
        let mut config = self.sizes_to_hf();
        config["model_type"] = "blip_text_model".into();
        config["encoder_hidden_size"] = encoder_hidden_size.into();
        config["is_decoder"] = true.into();
        config["projection_dim"] = 768.into();
        config["bos_token_id"] = tokens.start.unwrap_or(tokens.end).into();
        config["sep_token_id"] = tokens.end.into();
        config["eos_token_id"] = tokens.end.into();
        config["pad_token_id"] = tokens.pad.into();
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
        let tokens = SpecialTokens { start: Some(98), end: 3, pad: 1 };
        let written = config.to_blip(64, &tokens);
        assert_eq!(BertDecoderConfig::from_blip(&written).unwrap(), config);
        assert_eq!(SpecialTokens::from_blip(&written), tokens);
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
