//! Text-to-image diffusion: the models and schedulers of diffusers' folders, pipelines that generate and edit
//! images, and their training.

mod error;
mod layers;
pub mod lora;
pub mod metrics;
mod noise;
mod pipeline;
pub mod schedulers;
mod sd3;
pub mod single_file;
mod text;
pub mod textual_inversion;
mod unet;
mod vae;

pub use error::{Error, Result};
pub use noise::ImageNoise;
pub use pipeline::{
    DiffusionPipeline, Edit, EditKind, GenerateOptions, ImageRequest, PipelineOptions, Settings, StepProgress,
};
pub use sd3::{QkNorm, Sd3Condition, Sd3Config, Sd3Transformer};
pub use unet::{AddedConditions, TextKeyValues, UNet, UNetConfig, UNetInputs};
pub use vae::{LatentDistribution, Vae, VaeConfig};
