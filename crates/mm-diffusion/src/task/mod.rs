//! `run.task = "diffusion"`: images with texts in, the error of a denoiser out.

mod buckets;
mod cache;
mod config;
mod denoising;
mod evaluate;
mod init;
mod inversion;
mod item;
mod latents;
mod page;
mod preprocess;
mod samples;
mod templates;
mod train;

pub use buckets::BucketsConfig;
pub use cache::CacheConfig;
pub use config::{DiffusionRunConfig, InputConfig, ModelConfig, ObjectiveConfig, SampleConfig};
pub use inversion::{InversionPrompts, TextualInversionConfig};
pub use item::{DiffusionBatch, DiffusionItem};
pub use train::DiffusionTask;
