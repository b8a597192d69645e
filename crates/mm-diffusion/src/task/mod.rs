//! `run.task = "diffusion"`: images with texts in, the error of a denoiser out.

mod config;
mod denoising;
mod evaluate;
mod init;
mod item;
mod page;
mod samples;
mod train;

pub use config::{DiffusionRunConfig, InputConfig, ModelConfig, ObjectiveConfig, SampleConfig};
pub use item::{DiffusionBatch, DiffusionItem};
pub use train::DiffusionTask;
