//! The similarity of an image and its prompt by a CLIP.

use crate::reward::{DifferentiableReward, batch_size, check_count, distinct};
use crate::{Result, Reward};
use mm_clip::{ClipPipeline, ModelFolder};
use mm_core::DeviceConfig;
use mm_image::RgbImage;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The cosine of the embeddings of image and prompt, from -1 to 1, or the cosine times exp(logit_scale).
///
/// With the weights of HPSv2 (Wu et al. 2023, <https://arxiv.org/abs/2306.09341>), an open_clip ViT-H/14, the
/// cosine is its score. With those of PickScore (Kirstain et al. 2023, <https://arxiv.org/abs/2305.01569>), a
/// ViT-H/14 of transformers, the scaled cosine is its score: the softmax over two images of one prompt is the
/// probability that the first is preferred.
#[derive(Debug)]
pub struct ClipReward {
    pipeline: ClipPipeline,
    scale: f64,
}

impl ClipReward {
    /// The cosine of the CLIP in the folder or of the hub name `model`.
    ///
    /// # Errors
    /// As [`ClipPipeline::open`].
    pub fn open(model: &str, device: &DeviceConfig) -> Result<Self> {
        let mut vs = VarStore::new(device.resolve()?);
        let pipeline = ClipPipeline::load(ModelFolder::open(model)?, &vs, None)?;
        vs.freeze();
        Ok(Self { pipeline, scale: 1.0 })
    }

    /// The same, times exp(logit_scale): PickScore.
    ///
    /// # Errors
    /// As [`ClipReward::open`].
    pub fn open_scaled(model: &str, device: &DeviceConfig) -> Result<Self> {
        let Self { pipeline, .. } = Self::open(model, device)?;
        let scale = pipeline.head.logit_scale().exp().f_sum(Kind::Double)?.f_double_value(&[])?;
        Ok(Self { pipeline, scale })
    }

    /// The scores `[N]` of unit rows `[N, D]` of images.
    fn compare(&self, images: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        let (texts, places) = distinct(prompts);
        let rows = self.pipeline.text.embed(&texts, texts.len().max(1))?;
        // Selecting copies the rows, which come from inference mode and cannot be saved for a backward pass.
        let rows = rows.f_index_select(0, &places)?.to_device(images.device());
        let cosines = images.f_mul(&rows)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?;
        Ok(cosines * self.scale)
    }
}

impl Reward for ClipReward {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let rows = self.pipeline.image.embed(images)?;
        let scores = tch::no_grad(|| self.compare(&rows, prompts))?;
        Ok(Vec::try_from(scores.to_device(Device::Cpu))?)
    }

    fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
        Some(self)
    }
}

impl DifferentiableReward for ClipReward {
    fn score_pixels(&self, pixels: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        check_count(batch_size(pixels), prompts)?;
        let image = &self.pipeline.image;
        self.compare(&image.encoder.encode(&image.processor.process_pixels(pixels)?, false), prompts)
    }
}
