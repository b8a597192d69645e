//! `run.task = "autoencoder"`: trains the autoencoder whose latents a diffusion model learns.
//!
//! The loss is the absolute error of the pixels and a small weight of the Kullback-Leibler divergence of the
//! latents from the standard normal distribution (Rombach et al. 2022, section 3.1), by choice with a
//! perceptual part. Their adversarial part is left out: it needs a second model with an optimizer of its own.

mod config;
mod evaluate;
mod perceptual;
mod task;

pub use config::{AutoencoderModelConfig, AutoencoderObjective, AutoencoderRunConfig, PerceptualConfig};
pub use task::{AutoencoderBatch, AutoencoderItem, AutoencoderTask};
