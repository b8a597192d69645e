//! The config of a ViLT that answers questions.

use crate::{Error, Result};
use mm_core::hf::{check_eps, check_heads, check_layers, check_sizes};
use mm_core::nn::{Activation, BlockConfig, BlockInit, NormOrder};
use serde::{Deserialize, Serialize};

/// The sizes of a [`Vilt`](crate::Vilt), named as in a Hugging Face `config.json`. Defaults are those of
/// ViLT-B/32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViltConfig {
    /// Rows of the word embedding.
    pub vocab_size: i64,
    /// Rows of the segment embedding of texts, of which the first is used.
    pub type_vocab_size: i64,
    /// Rows of the embedding of modalities: text, image, and in other models a second image.
    pub modality_type_vocab_size: i64,
    /// The largest number of tokens of a question.
    pub max_position_embeddings: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width between the MLPs' two layers.
    pub intermediate_size: i64,
    /// Number of transformer blocks.
    pub num_hidden_layers: i64,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: i64,
    /// The MLPs' activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms, but for the classifier's.
    pub layer_norm_eps: f64,
    /// Side of the square of pixels that the table of positions covers.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// The answers, one for each class.
    #[serde(skip)]
    pub answers: Vec<String>,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`]. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

/// Standard deviation of the initial weights.
pub(super) const INIT_STD: f64 = 0.02;

impl Default for ViltConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            type_vocab_size: 2,
            modality_type_vocab_size: 2,
            max_position_embeddings: 40,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            image_size: 384,
            patch_size: 32,
            answers: Vec::new(),
            gradient_checkpointing: false,
        }
    }
}

impl ViltConfig {
    /// Checks that a model can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("type_vocab_size", self.type_vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("the number of answers", self.answers.len() as i64),
        ])
        .and_then(|()| check_layers("num_hidden_layers", self.num_hidden_layers))
        .and_then(|()| check_heads(self.hidden_size, self.num_attention_heads))
        .and_then(|()| check_eps(self.layer_norm_eps))
        .map_err(Error::Model)?;
        let wrong = |text: String| Err(Error::Model(text));
        if self.patch_size > self.image_size {
            let (patch, image) = (self.patch_size, self.image_size);
            return wrong(format!(
                "patch_size {patch} is larger than image_size {image}: there would be no patch"
            ));
        }
        if !(2..=16).contains(&self.modality_type_vocab_size) {
            let rows = self.modality_type_vocab_size;
            return wrong(format!(
                "modality_type_vocab_size is {rows}: it must be from 2, for text and image, to 16"
            ));
        }
        Ok(())
    }

    /// Positions along a side of the table.
    pub(super) fn grid(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// The largest number of tokens of a question.
    pub fn max_question_length(&self) -> usize {
        self.max_position_embeddings as usize
    }

    /// The model in a few words.
    pub fn describe(&self) -> String {
        format!(
            "ViLT: {} blocks, width {}, {} heads, MLP {} ({}); patches of {} px, questions of {} tokens, \
             {} answers",
            self.num_hidden_layers,
            self.hidden_size,
            self.num_attention_heads,
            self.intermediate_size,
            self.hidden_act.name(),
            self.patch_size,
            self.max_position_embeddings,
            self.answers.len()
        )
    }

    /// Whether the optimizer's weight decay applies to the parameter `name`, given that it is a matrix; see
    /// [`TowerSpec::has_weight_decay`](mm_core::nn::TowerSpec::has_weight_decay).
    pub fn has_weight_decay(&self, name: &str) -> bool {
        let name = name.strip_prefix("vilt.embeddings.").unwrap_or_default();
        !matches!(name, "cls_token" | "position_embeddings" | "text_embeddings.position_embeddings.weight")
    }

    pub(super) fn block_config(&self) -> BlockConfig {
        BlockConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            mlp_width: self.intermediate_size,
            activation: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            norm_order: NormOrder::Pre,
            layers: self.num_hidden_layers,
            init: BlockInit::Normal(INIT_STD),
            gradient_checkpointing: self.gradient_checkpointing,
            ..BlockConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_errors_name_the_field_and_its_value() {
        let yes_no = || vec!["yes".to_owned(), "no".to_owned()];
        let base = || ViltConfig { answers: yes_no(), ..ViltConfig::default() };
        let message = |config: ViltConfig| config.validate().unwrap_err().to_string();
        assert!(base().validate().is_ok());
        for (config, expected) in [
            (ViltConfig { answers: Vec::new(), ..base() }, "the number of answers is 0"),
            (ViltConfig { num_attention_heads: 7, ..base() }, "no multiple of num_attention_heads 7"),
            (ViltConfig { patch_size: 385, ..base() }, "patch_size 385 is larger than image_size 384"),
            (ViltConfig { modality_type_vocab_size: 1, ..base() }, "modality_type_vocab_size is 1"),
            (ViltConfig { layer_norm_eps: f64::NAN, ..base() }, "layer_norm_eps is NaN"),
        ] {
            let message = message(config);
            assert!(message.contains(expected), "{message}");
        }
    }
}
