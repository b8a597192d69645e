//! Text-to-image diffusion: the models and schedulers of diffusers' folders, pipelines that generate and edit
//! images, and their training.

mod autoencoder;
mod error;
mod framing;
mod image_record;
mod judge;
mod layers;
pub mod lora;
pub mod metrics;
mod noise;
mod objective;
mod parameters;
mod pipeline;
mod policy;
mod safety_checker;
pub mod schedulers;
mod sd3;
pub mod single_file;
mod task;
mod text;
pub mod textual_inversion;
mod trainable;
mod unet;
mod vae;

pub use autoencoder::{
    AutoencoderBatch, AutoencoderItem, AutoencoderModelConfig, AutoencoderObjective, AutoencoderRunConfig,
    AutoencoderTask, PerceptualConfig,
};
pub use error::{Error, Result};
pub use framing::framed;
pub use image_record::{EditRecord, EmbeddingRecord, ImageRecord, LoraRecord, RECORD_KEYWORD};
pub use judge::{
    SceneReader, SceneReaderConfig, SceneReaderRunConfig, SceneReaderTask, SceneVerdict, SeenObject, judge,
};
pub use noise::ImageNoise;
pub use objective::{DdpmConfig, FlowConfig, FlowPrediction, NoiseDraw};
pub use parameters::{ImageParameters, PARAMETERS_KEYWORD};
pub use pipeline::{
    DiffusionPipeline, Edit, EditKind, GenerateOptions, GeneratedImage, ImageRequest, PipelineOptions,
    Settings, StepProgress, enlarged,
};
pub use policy::{PolicyConditions, SamplerCall, TrainingLevels};
pub use safety_checker::{SafetyChecker, SafetyVerdict};
pub use sd3::{QkNorm, Sd3Condition, Sd3Config, Sd3Transformer};
pub use task::{
    BucketsConfig, CacheConfig, DiffusionBatch, DiffusionItem, DiffusionRunConfig, DiffusionTask,
    InputConfig, InversionPrompts, ModelConfig, ObjectiveConfig, SampleConfig, TextualInversionConfig,
};
pub use trainable::TrainablePipeline;
pub use unet::{AddedConditions, TextKeyValues, UNet, UNetConfig, UNetInputs};
pub use vae::{LatentDistribution, Vae, VaeConfig};
