//! The autoencoder and the distribution of its latents.

use super::blocks::{Decoder, Encoder};
use super::config::VaeConfig;
use crate::Result;
use crate::layers::LAYOUT;
use mm_core::Precision;
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::nn::{Conv2d, Conv2dConfig, channels_last};
use tch::nn::Path;
use tch::{Device, Kind, Tensor};

/// diffusers' `AutoencoderKL`.
#[derive(Debug)]
pub struct Vae {
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
    config: VaeConfig,
    device: Device,
}

impl Vae {
    /// How checkpoints store the model.
    pub const LAYOUT: TensorLayout = LAYOUT;

    /// Creates the model's parameters below `path`, initialized as PyTorch does.
    ///
    /// # Errors
    /// As [`VaeConfig::validate`].
    pub fn new(path: &Path, config: &VaeConfig) -> Result<Self> {
        config.validate()?;
        let latents = config.latent_channels;
        let conv =
            |name: &str, channels| Conv2d::new(&(path / name), Conv2dConfig::same(channels, channels, 1));
        Ok(Self {
            encoder: Encoder::new(&(path / "encoder"), config),
            quant_conv: config.use_quant_conv.then(|| conv("quant_conv", 2 * latents)),
            post_quant_conv: config.use_post_quant_conv.then(|| conv("post_quant_conv", latents)),
            decoder: Decoder::new(&(path / "decoder"), config),
            config: config.clone(),
            device: path.device(),
        })
    }

    /// The names of the attention's weights in checkpoints from before diffusers 0.15 (`query`, `proj_attn`)
    /// become today's.
    pub fn rename_old_attention(weights: &mut Weights) {
        const NAMES: [(&str, &str); 4] =
            [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];
        weights.rename(|name| {
            let renamed = NAMES.iter().find_map(|(old, new)| {
                let (before, end) = name.rsplit_once('.')?;
                let parent = before.strip_suffix(old)?.strip_suffix('.')?;
                parent.contains("attentions").then(|| format!("{parent}.{new}.{end}"))
            });
            renamed.unwrap_or_else(|| name.to_owned())
        });
    }

    /// The config of the model.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The device of the model.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Latents are multiplied by `factor` for the diffusion model from now on.
    pub(crate) fn set_scaling_factor(&mut self, factor: f64) {
        self.config.scaling_factor = factor;
    }

    /// Maps `pixel_values` `[B, 3, H, W]` in -1 to 1 to the distribution of their latents. H and W are
    /// multiples of [`VaeConfig::reduction`].
    pub fn encode(&self, pixel_values: &Tensor) -> LatentDistribution {
        let moments = self.encoder.forward(&channels_last(pixel_values));
        let moments = self.quant_conv.as_ref().map_or(moments.shallow_clone(), |conv| conv.forward(&moments));
        LatentDistribution::new(&moments.to_kind(Kind::Float))
    }

    /// Maps latents `[B, latent_channels, h, w]` to pixels `[B, 3, H, W]`, about -1 to 1.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        let latents = channels_last(latents);
        let latents =
            self.post_quant_conv.as_ref().map_or(latents.shallow_clone(), |conv| conv.forward(&latents));
        self.decoder.forward(&latents).to_kind(Kind::Float)
    }

    /// Latents as the diffusion model reads them: `(x - shift) * scaling_factor`.
    pub fn scale_latents(&self, latents: &Tensor) -> Tensor {
        let (mean, factor) = self.scaling(latents);
        (latents - mean) * factor
    }

    /// The inverse of [`Vae::scale_latents`].
    pub fn unscale_latents(&self, latents: &Tensor) -> Tensor {
        let (mean, factor) = self.scaling(latents);
        latents / factor + mean
    }

    /// What is subtracted from latents, and the factor after that, each broadcast over `latents`.
    fn scaling(&self, latents: &Tensor) -> (Tensor, Tensor) {
        let VaeConfig { scaling_factor, shift_factor, latents_mean, latents_std, .. } = &self.config;
        let channels = |numbers: &[f64]| {
            Tensor::from_slice(numbers).to_kind(Kind::Float).view([1, -1, 1, 1]).to_device(latents.device())
        };
        match (latents_mean, latents_std) {
            (Some(mean), Some(std)) => (channels(mean), *scaling_factor / channels(std)),
            _ => (channels(&[shift_factor.unwrap_or(0.0)]), channels(&[*scaling_factor])),
        }
    }

    /// Prepares for inference in `precision`: weights are laid out for oneDNN.
    pub fn pack(&mut self, precision: Precision) {
        self.encoder.pack(precision);
        self.quant_conv.iter_mut().for_each(|conv| conv.pack(precision));
        self.post_quant_conv.iter_mut().for_each(|conv| conv.pack(precision));
        self.decoder.pack(precision);
    }
}

/// A normal distribution of latents, one for each number (Kingma & Welling 2014).
#[derive(Debug)]
pub struct LatentDistribution {
    /// The mean, `[B, latent_channels, h, w]`.
    pub mean: Tensor,
    /// The logarithm of the variance, within -30 to 20.
    pub log_variance: Tensor,
}

impl LatentDistribution {
    /// From `moments` `[B, 2 latent_channels, h, w]`.
    fn new(moments: &Tensor) -> Self {
        let parts = moments.chunk(2, 1);
        Self { mean: parts[0].shallow_clone(), log_variance: parts[1].clamp(-30.0, 20.0) }
    }

    /// The standard deviation, of the mean's shape.
    pub fn std(&self) -> Tensor {
        (&self.log_variance * 0.5).exp()
    }

    /// The latents for standard normal `noise` of the mean's shape.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + self.std() * noise
    }

    /// The Kullback-Leibler divergence from the standard normal distribution, summed over an image: `[B]`.
    pub fn kl(&self) -> Tensor {
        let terms = self.mean.square() + self.log_variance.exp() - 1.0 - &self.log_variance;
        terms.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float) * 0.5
    }
}
