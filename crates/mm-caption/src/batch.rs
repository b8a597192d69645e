//! The samples of a training step.

use crate::ppo::Experience;
use crate::rewards::RewardTarget;
use mm_image::RgbImage;
use mm_text::decoder::{CaptionTokens, NextTokens};
use std::rc::Rc;
use tch::Tensor;

/// An image and a caption, ready to be batched.
pub struct CaptionItem {
    pub(crate) image: RgbImage,
    pub(crate) tokens: CaptionTokens,
    /// Whether the caption was longer than `input.max_tokens`.
    pub(crate) is_cut: bool,
    /// The seed of captions that are drawn for the image; it depends on the run's seed and the draw alone.
    pub(crate) seed: u64,
    /// The references of rewards, in training by rewards.
    pub(crate) target: Option<RewardTarget>,
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
    /// The captions, with the tokens to predict: references, or in a roll-out the drawn ones.
    pub next: NextTokens,
    /// The share of captions that were cut.
    pub cut_captions: f64,
    /// The references of rewards for each image, in self-critical training.
    pub(crate) targets: Vec<RewardTarget>,
    /// Probabilities, values and advantages of the drawn tokens, in a roll-out.
    pub(crate) experience: Option<Rc<Experience>>,
}

impl CaptionBatch {
    /// The same batch, in the same memory.
    pub(crate) fn shallow_clone(&self) -> Self {
        let NextTokens { input_ids, index, labels, lengths } = &self.next;
        let (input_ids, index) = (input_ids.shallow_clone(), index.shallow_clone());
        let next = NextTokens { input_ids, index, labels: labels.shallow_clone(), lengths: lengths.clone() };
        Self {
            pixel_values: self.pixel_values.shallow_clone(),
            next,
            cut_captions: self.cut_captions,
            targets: self.targets.clone(),
            experience: self.experience.clone(),
        }
    }
}
