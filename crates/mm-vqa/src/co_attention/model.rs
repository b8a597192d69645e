//! A co-attention model.

use super::config::CoAttentionConfig;
use super::fusion::ImageAttention;
use super::head::{CoAttentionHead, ImageTokens};
use crate::Result;
use mm_core::Precision;
use mm_core::nn::Embedding;
use mm_vision::{ImageTower, ImageTowerConfig, TokenGrid};
use tch::Tensor;
use tch::nn::Path;

/// A model from an image and a question to the logits of answers: an image tower below
/// [`ImageTowerSpec::root`](mm_vision::ImageTowerSpec::root), and a [`CoAttentionHead`] beside it.
#[derive(Debug)]
pub struct CoAttention {
    tower: Box<dyn ImageTower>,
    head: CoAttentionHead,
}

impl CoAttention {
    /// Creates the model's parameters below `path`. The regions of a tower without positions of its own, such
    /// as a ResNet, get learned ones.
    ///
    /// # Errors
    /// As [`CoAttentionConfig::validate`].
    pub fn new(path: &Path, config: &CoAttentionConfig) -> Result<Self> {
        config.validate()?;
        let tower = config.image.build(&(path / config.image.root()))?;
        let TokenGrid { extra_tokens, side } = config.image.token_grid();
        let has_positions = matches!(config.image, ImageTowerConfig::Vit(_));
        let tokens = ImageTokens {
            width: tower.tokens_width(),
            positions: (!has_positions).then_some(extra_tokens + side * side),
        };
        let head = CoAttentionHead::new(path, tokens, config)?;
        Ok(Self { tower, head })
    }

    /// The tokens `[G, N, width]` of images `pixel_values` `[G, 3, H, W]` that any number of questions are
    /// asked about. `train` is the training mode of the tower.
    pub fn encode_images(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.head.project(&self.tower_tokens(pixel_values, train))
    }

    /// The tokens `[G, N, C]` of the image tower, for [`CoAttentionHead::project`].
    pub fn tower_tokens(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.tower.forward_tokens(pixel_values, train)
    }

    /// As [`CoAttentionHead::forward`].
    pub fn forward(
        &self,
        image_tokens: &Tensor,
        image_index: &Tensor,
        input_ids: &Tensor,
        lengths: &Tensor,
    ) -> Tensor {
        self.head.forward(image_tokens, image_index, input_ids, lengths)
    }

    /// As [`CoAttentionHead::forward_with_weights`].
    pub fn forward_with_weights(
        &self,
        image_tokens: &Tensor,
        image_index: &Tensor,
        input_ids: &Tensor,
        lengths: &Tensor,
    ) -> (Tensor, ImageAttention) {
        self.head.forward_with_weights(image_tokens, image_index, input_ids, lengths)
    }

    /// As [`CoAttentionHead::forward_blind`].
    pub fn forward_blind(&self, input_ids: &Tensor, lengths: &Tensor) -> Tensor {
        self.head.forward_blind(input_ids, lengths)
    }

    /// All of the model but the image tower.
    pub fn head(&self) -> &CoAttentionHead {
        &self.head
    }

    /// As [`CoAttentionHead::word_embedding`].
    pub fn word_embedding(&self) -> &Embedding {
        self.head.word_embedding()
    }

    /// As [`CoAttentionHead::set_training`].
    pub fn set_training(&self, on: bool) {
        self.head.set_training(on);
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.tower.pack(precision);
        self.head.pack(precision);
    }
}
