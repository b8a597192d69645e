//! Vision-language models that read images as tokens of a text: an image tower, a connector and a decoder of
//! Llama's form.
//!
//! An image becomes one or several square tiles, the tower and the [`Connector`] make some vectors of the
//! decoder's width of each, and these take the places of as many placeholder tokens in the prompt. Offered
//! are transformers' `SmolVLMForConditionalGeneration`, `Idefics3ForConditionalGeneration` and
//! `LlavaForConditionalGeneration` (LLaVA-1.5, and the interleave form with SigLIP and Qwen2).
//!
//! ```no_run
//! use mm_core::OpenOptions;
//! use mm_text::{ChatMessage, ChatPart};
//! use mm_vqa::vlm::VlmPipeline;
//!
//! let pipeline = VlmPipeline::open("HuggingFaceTB/SmolVLM-256M-Instruct", &OpenOptions::default())?;
//! let image = mm_image::decode(&std::fs::read("photo.jpg")?, [255; 3])?;
//! let question = vec![ChatPart::Image, ChatPart::Text("What is this?".to_owned())];
//! let inputs = pipeline.prompt(&[ChatMessage::new("user", question)], &[image])?;
//! println!("{}", pipeline.generate(&[inputs], &pipeline.generation)?[0][0].text);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Placeholders and vectors are counted before anything is computed; a prompt is never cut, inside an image
//! or elsewhere. A batch of prompts of any lengths and numbers of images gives what its prompts give alone.

mod batch;
mod checkpoint;
mod config;
mod connector;
mod conversation;
mod decoder;
mod evaluate;
mod folder;
mod hf;
mod images;
mod init_from;
mod model;
mod packing;
mod pipeline;
mod processor;
mod report;
mod run_config;
mod sections;
mod stream;
mod task;
mod turns;

pub use batch::{VlmBatch, VlmItem};
pub use config::{ConnectorConfig, FeatureSelection, VlmConfig, VlmFamily};
pub use connector::Connector;
pub use conversation::{Content, PromptsConfig};
pub use decoder::VlmDecoder;
pub use folder::{VlmFolder, VlmParts};
pub use images::VlmImages;
pub use model::Vlm;
pub use pipeline::{VlmAnswer, VlmInputs, VlmPipeline};
pub use processor::{ImageSplitting, VlmProcessor};
pub use run_config::{
    ChatTokenizerConfig, InputConfig, LossConfig, MetricsConfig, ModelConfig, TrainedParts, VlmRunConfig,
};
pub use task::VlmTask;
