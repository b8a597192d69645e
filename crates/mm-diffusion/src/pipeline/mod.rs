//! Pipelines: from prompts and images to images.

mod attention;
mod denoiser;
mod edit;
mod guidance;
mod images;
mod open;
mod options;
mod parts;
mod sample;
mod save;

pub use edit::{Edit, EditKind};
pub use images::enlarged;
pub use open::{DiffusionPipeline, PipelineOptions};
pub use options::{GenerateOptions, GeneratedImage, ImageRequest, Settings};
pub use sample::StepProgress;

pub(crate) use denoiser::Denoiser;
pub(crate) use images::{gray, stack_pixel_values, to_pictures};
pub(crate) use open::{Family, INDEX_FILE, LATENT_CLASS, PIXEL_CLASS, WEIGHTS};
pub(crate) use save::make_folder;
