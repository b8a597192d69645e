//! The samples of a training step.

use crate::metrics::PreparedReferences;
use mm_data::shapes::Scene;
use mm_image::RgbImage;
use mm_text::decoder::{CaptionTokens, NextTokens};
use std::collections::BTreeSet;
use std::sync::Arc;
use tch::Tensor;

/// An image and a caption, ready to be batched.
pub struct CaptionItem {
    pub(crate) image: RgbImage,
    pub(crate) tokens: CaptionTokens,
    /// Whether the caption was longer than `input.max_tokens`.
    pub(crate) is_cut: bool,
    /// What rewards compare with, in self-critical training.
    pub(crate) target: Option<RewardTarget>,
}

/// What the rewards of an image's captions compare with.
#[derive(Clone, Debug)]
pub(crate) struct RewardTarget {
    pub references: PreparedReferences,
    pub scene: Option<Arc<Scene>>,
    /// COCO's classes that the references name, where CHAIR is a reward.
    pub classes: BTreeSet<&'static str>,
}

impl mm_data::Item for CaptionItem {
    fn bytes(&self) -> usize {
        self.image.bytes() + 4 * self.tokens.token_ids.len()
    }
}

/// Images with captions on the model's device.
pub struct CaptionBatch {
    /// `[B, 3, S, S]`.
    pub pixel_values: Tensor,
    /// The captions, with the tokens to predict.
    pub next: NextTokens,
    /// The share of captions that were cut.
    pub cut_captions: f64,
    /// For each image, what rewards compare with, in self-critical training.
    pub(crate) targets: Vec<RewardTarget>,
}
