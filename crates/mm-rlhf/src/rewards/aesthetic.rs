//! Aesthetic quality, by an MLP on a CLIP's image embedding.

use super::ScoreHead;
use super::head::HeadSizes;
use crate::reward::{DifferentiableReward, batch_size, check_count};
use crate::{Result, Reward};
use mm_clip::{ImageEmbedder, OpenOptions};
use mm_core::DeviceConfig;
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_image::RgbImage;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// An MLP on the embedding of an image, normalized to length 1; the prompt is not read.
///
/// LAION's aesthetic predictor v2 (Schuhmann et al. 2022, <https://arxiv.org/abs/2210.08402>) is one on CLIP
/// ViT-L/14 with five linear layers and no activations between them (768-1024-128-64-16-1), trained on
/// ratings from 1 to 10. The other form has one hidden layer with a ReLU (768-256-1).
#[derive(Debug)]
pub struct AestheticReward {
    images: ImageEmbedder,
    head: ScoreHead,
}

impl AestheticReward {
    /// The MLP in the safetensors `file` on the CLIP in the folder or of the hub name `model`. The file has
    /// the tensors `layers.N.weight` and `layers.N.bias` and no others, N being 0 and 2 of the form with a
    /// ReLU and 0, 2, 4, 6, 7 of LAION's; hidden widths are the file's.
    ///
    /// # Errors
    /// As [`ImageEmbedder::open`]; the file is missing or damaged, has other tensors, or is for embeddings of
    /// another width.
    pub fn open(model: &str, file: &Path, device: &DeviceConfig) -> Result<Self> {
        let weights = Weights::open(file)?;
        let options = OpenOptions { device: device.clone(), ..OpenOptions::default() };
        let images = ImageEmbedder::open(model, &options)?;
        let sizes = HeadSizes::of(&weights, "", images.encoder.output_width());
        let mut vs = VarStore::new(images.device);
        let head = weights
            .build(&vs, &TensorLayout::AS_IS, |path| -> Result<_> { Ok(ScoreHead::new(path, &sizes)) })?;
        vs.freeze();
        Ok(Self { images, head })
    }
}

impl Reward for AestheticReward {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let rows = self.images.embed(images)?.to_device(self.images.device);
        let scores = tch::no_grad(|| self.head.forward(&rows))?;
        Ok(Vec::try_from(scores.to_device(Device::Cpu))?)
    }

    fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
        Some(self)
    }
}

impl DifferentiableReward for AestheticReward {
    fn score_pixels(&self, pixels: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        check_count(batch_size(pixels), prompts)?;
        let pixel_values = self.images.processor.process_pixels(pixels)?;
        self.head.forward(&self.images.encoder.encode(&pixel_values, false))
    }
}
