//! The samples of a training step.

use super::cache::CachedText;
use crate::framing::Size;
use crate::objective::NoiseDraw;
use crate::text::TextConditions;
use mm_image::RgbImage;
use tch::Tensor;

/// A picture, or what the autoencoder made of it.
pub(super) enum Picture<Latents> {
    Pixels(RgbImage),
    Latents(Latents),
}

/// The distribution of the latents of one image, `[1, C, h, w]` each.
pub(super) struct Latents {
    pub mean: Tensor,
    /// The standard deviation.
    pub std: Tensor,
}

/// The images of a sample.
pub(super) struct Pictures {
    /// The image to generate.
    pub image: Picture<Latents>,
    /// The image that is edited, which the prompt then is an instruction for; of its latents the mean.
    pub source: Option<Picture<Tensor>>,
    /// How much each position of the image's latents counts, in rows; none: the sample has no mask.
    pub weights: Option<Vec<f32>>,
    /// SDXL's six sizes: see [`crate::framing::Framing::sizes`].
    pub sizes: [f32; 6],
}

/// An image and a prompt, ready to be batched, with the random numbers of the sample's draw.
pub struct DiffusionItem {
    pub(super) pictures: Pictures,
    pub(super) prompt: String,
    pub(super) token_ids: Vec<u32>,
    /// Whether the prompt was longer than the text encoder reads.
    pub(super) is_cut: bool,
    /// The states of the prompt, where a cache has them.
    pub(super) text: Option<CachedText>,
    /// The seed of the noise.
    pub(super) noise_seed: u64,
    pub(super) level: NoiseDraw,
}

impl<Latents> Picture<Latents> {
    /// Width and height of the pixels, where they are here.
    pub(super) fn size(&self) -> Option<Size> {
        match self {
            Self::Pixels(image) => Some(image.dimensions()),
            Self::Latents(_) => None,
        }
    }

    fn bytes(&self, latents: impl FnOnce(&Latents) -> usize) -> usize {
        match self {
            Self::Pixels(image) => image.as_raw().len(),
            Self::Latents(own) => latents(own),
        }
    }
}

impl mm_data::Item for DiffusionItem {
    fn bytes(&self) -> usize {
        let text = self.text.as_ref().map_or(0, CachedText::bytes);
        self.pictures.bytes() + text + 4 * self.token_ids.len()
    }
}

impl Pictures {
    pub(super) fn bytes(&self) -> usize {
        let Self { image, source, weights, .. } = self;
        let source = source.as_ref().map_or(0, |source| source.bytes(|mean| 4 * mean.numel()));
        let weights = weights.as_ref().map_or(0, |weights| 4 * weights.len());
        image.bytes(|latents| 8 * latents.mean.numel()) + source + weights
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
    /// What the errors of each position are multiplied by, `[B, 1, h, w]`, with `input.masked_loss`.
    pub(super) weights: Option<Tensor>,
    /// SDXL's sizes, `[B, 6]`.
    pub(super) sizes: Tensor,
    pub(super) tokens: mm_text::TokenBatch,
    pub(super) prompts: Vec<String>,
    /// What the denoiser reads of the prompts, where a cache has it.
    pub(super) text: Option<TextConditions>,
    /// The share of prompts that were cut.
    pub(super) cut_prompts: f64,
    /// The share of samples without a mask.
    pub(super) without_mask: f64,
}
