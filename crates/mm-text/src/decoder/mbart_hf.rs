//! Reads and writes transformers' config of MBart's decoder.

use super::{MBartDecoderConfig, TextDecoderSpec};
use crate::Result;
use crate::config::{check_only, overlay};
use serde_json::{Value, json};

impl MBartDecoderConfig {
    /// Reads the config of a `MBartForCausalLM`. Absent and null fields have transformers' defaults.
    ///
    /// # Errors
    /// A field of another type, a setting that is not supported, or those of [`TextDecoderSpec::validate`].
    pub fn from_hf(config: &Value) -> Result<Self> {
        check_only(config, "tie_word_embeddings", true.into())?;
        check_only(config, "is_decoder", true.into())?;
        // transformers then reads states of another width without a projection, which MBart cannot.
        check_only(config, "cross_attention_hidden_size", Value::Null)?;
        let read: Self = overlay(&Self::transformers_default(), config)?;
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' `MBartConfig` of a decoder with cross-attention.
    pub fn to_hf(&self) -> Value {
        json!({
            "model_type": "mbart",
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "decoder_layers": self.decoder_layers,
            "decoder_attention_heads": self.decoder_attention_heads,
            "decoder_ffn_dim": self.decoder_ffn_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "activation_function": self.activation_function.name(),
            "scale_embedding": self.scale_embedding,
            // An encoder of its own, which does not exist, names these.
            "encoder_attention_heads": self.decoder_attention_heads,
            "encoder_layers": self.decoder_layers,
            "tie_word_embeddings": true,
            "is_decoder": true,
            "is_encoder_decoder": false,
            "add_cross_attention": true,
        })
    }

    /// The defaults of transformers' `MBartConfig`.
    fn transformers_default() -> Self {
        Self {
            vocab_size: 50265,
            decoder_layers: 12,
            max_position_embeddings: 1024,
            scale_embedding: false,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let small = MBartDecoderConfig {
            vocab_size: 100,
            d_model: 96,
            decoder_attention_heads: 3,
            scale_embedding: false,
            ..MBartDecoderConfig::default()
        };
        for config in [small, MBartDecoderConfig::default()] {
            assert_eq!(MBartDecoderConfig::from_hf(&config.to_hf()).unwrap(), config);
        }
    }

    #[test]
    fn the_defaults_are_those_of_transformers() {
        let config = MBartDecoderConfig::from_hf(&json!({"add_final_layer_norm": true})).unwrap();
        assert_eq!((config.vocab_size, config.decoder_layers, config.scale_embedding), (50265, 12, false));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_value() {
        let cases = [
            (json!({"tie_word_embeddings": false}), "tie_word_embeddings is false"),
            (json!({"cross_attention_hidden_size": 64}), "cross_attention_hidden_size is 64"),
            (
                json!({"decoder_attention_heads": 7}),
                "d_model 1024 is no multiple of decoder_attention_heads 7",
            ),
            (json!({"decoder_layers": 0}), "decoder_layers is 0"),
            (json!({"activation_function": "mish"}), "unknown variant `mish`"),
        ];
        for (config, expected) in cases {
            let message = MBartDecoderConfig::from_hf(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
