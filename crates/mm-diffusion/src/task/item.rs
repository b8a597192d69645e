//! The samples of a training step.

use crate::objective::Level;
use mm_image::RgbImage;
use tch::Tensor;

/// An image and a prompt, ready to be batched, with the random numbers of the sample's draw.
pub struct DiffusionItem {
    /// The image to generate.
    pub(super) image: RgbImage,
    /// The image that is edited, which the prompt then is an instruction for.
    pub(super) source: Option<RgbImage>,
    pub(super) prompt: String,
    pub(super) token_ids: Vec<u32>,
    /// Whether the prompt was longer than the text encoder reads.
    pub(super) is_cut: bool,
    /// The seed of the noise.
    pub(super) noise_seed: u64,
    pub(super) level: Level,
}

impl mm_data::Item for DiffusionItem {
    fn bytes(&self) -> usize {
        let source = self.source.as_ref().map_or(0, |image| image.as_raw().len());
        self.image.as_raw().len() + source + 4 * self.token_ids.len()
    }
}

/// Images with prompts and noise on the model's device.
pub struct DiffusionBatch {
    /// The images or their latents, `[B, C, h, w]`.
    pub(super) clean: Tensor,
    /// Standard normal, of the same shape.
    pub(super) noise: Tensor,
    /// The share of noise, `[B]`, or the training timestep (i64).
    pub(super) level: Tensor,
    /// What the model reads beside noisy images, `[B, C', h, w]`.
    pub(super) extra: Option<Tensor>,
    pub(super) tokens: mm_text::TokenBatch,
    pub(super) prompts: Vec<String>,
    /// The share of prompts that were cut.
    pub(super) cut_prompts: f64,
}
