//! `run.task = "autoencoder"`: trains the autoencoder whose latents a diffusion model learns.
//!
//! The loss is the absolute error of the pixels and a small weight of the Kullback-Leibler divergence of the
//! latents from the standard normal distribution (Rombach et al. 2022, section 3.1), without their perceptual
//! and adversarial parts.

mod config;
mod evaluate;
mod task;

pub use config::{AutoencoderModelConfig, AutoencoderObjective, AutoencoderRunConfig};
pub use task::{AutoencoderBatch, AutoencoderItem, AutoencoderTask};
