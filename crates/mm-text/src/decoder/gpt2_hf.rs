//! Reads and writes transformers' config of GPT-2, and the layout of its files.

use super::{Gpt2Config, TextDecoderSpec};
use crate::Result;
use crate::config::{check_only, overlay};
use mm_core::checkpoint::{TensorLayout, hf_names};
use serde_json::{Value, json};

/// The layout of files with a GPT-2: the matrices of its blocks are `[in, out]` there (`Conv1D`).
pub const GPT2_LAYOUT: TensorLayout = TensorLayout { names: hf_names, is_transposed: is_conv1d };

/// Whether `name` is a matrix of one of GPT-2's blocks.
fn is_conv1d(name: &str) -> bool {
    [".c_attn.weight", ".c_proj.weight", ".q_attn.weight", ".c_fc.weight"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

impl Gpt2Config {
    /// Reads the config of a `GPT2LMHeadModel`. Absent and null fields have transformers' defaults.
    ///
    /// # Errors
    /// A field of another type, a setting that is not supported, or those of [`TextDecoderSpec::validate`].
    pub fn from_hf(config: &Value) -> Result<Self> {
        check_only(config, "scale_attn_weights", true.into())?;
        check_only(config, "scale_attn_by_inverse_layer_idx", false.into())?;
        check_only(config, "tie_word_embeddings", true.into())?;
        let read: Self = overlay(&Self::default(), config)?;
        read.validate()?;
        Ok(read)
    }

    /// The fields of transformers' `GPT2Config`.
    pub fn to_hf(&self) -> Value {
        json!({
            "model_type": "gpt2",
            "vocab_size": self.vocab_size,
            "n_positions": self.n_positions,
            "n_embd": self.n_embd,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_inner": self.n_inner,
            "activation_function": self.activation_function.name(),
            "layer_norm_epsilon": self.layer_norm_epsilon,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for n_inner in [None, Some(100)] {
            let config = Gpt2Config { n_embd: 96, n_inner, ..Gpt2Config::default() };
            assert_eq!(Gpt2Config::from_hf(&config.to_hf()).unwrap(), config);
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_value() {
        let cases = [
            (json!({"scale_attn_by_inverse_layer_idx": true}), "scale_attn_by_inverse_layer_idx is true"),
            (json!({"n_head": 7}), "n_embd 768 is no multiple of n_head 7"),
            (json!({"n_layer": 0}), "num_hidden_layers is 0"),
        ];
        for (config, expected) in cases {
            let message = Gpt2Config::from_hf(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
