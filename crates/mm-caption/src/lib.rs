//! Image captioning: models, training, decoding, metrics.
//!
//! A [`Captioner`] is an image tower of `mm-vision` and a decoder of `mm-text` that reads it, joined as its
//! [`CaptionerVariant`] says: BLIP, a ViT (or any other tower) with GPT-2 or BERT, or ClipCap. A
//! [`CaptionPipeline`] is one with its preprocessing and tokenizer, opened from a folder of transformers.
//!
//! ```no_run
//! use mm_caption::CaptionPipeline;
//! use mm_core::OpenOptions;
//! use mm_text::generate::GenerationConfig;
//!
//! let pipeline = CaptionPipeline::open("Salesforce/blip-image-captioning-base", &OpenOptions::default())?;
//! let image = mm_image::decode(&std::fs::read("photo.jpg")?, [255; 3])?;
//! let beams = GenerationConfig { num_beams: 3, num_return_sequences: 3, ..pipeline.generation.clone() };
//! for caption in &pipeline.caption(&[image], "a picture of", &beams)?[0] {
//!     println!("{:.2} {}", caption.score, caption.caption);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # To extend
//!
//! - A family of checkpoints: a file in `folder/` that reads and writes its config, a variant of
//!   [`CaptionerVariant`] where the decoder reads the image in a new way, and a golden.
//! - A decoder: see [`mm_text::decoder`].
//! - A metric: a file in `metrics/`.

mod attention;
mod batch;
mod config;
mod error;
mod evaluate;
mod folder;
mod init_from;
pub mod metrics;
mod model;
mod objective;
mod pipeline;
mod ppo;
mod prefix;
mod reward_config;
mod rewards;
mod run_config;
mod scst;
mod sections;
mod set_captioner;
mod stream;
mod task;

pub use attention::word_attention;
pub use batch::{CaptionBatch, CaptionItem};
pub use config::{CaptionerConfig, CaptionerVariant, PrefixConfig, PrefixMapperConfig};
pub use error::{Error, Result};
pub use folder::{CaptionerFolder, Description};
pub use mm_text::decoder::SpecialTokens;
pub use model::Captioner;
pub use pipeline::{Caption, CaptionPipeline, CaptionToken};
pub use reward_config::{Baseline, PpoConfig, ScstConfig};
pub use run_config::{CaptionRunConfig, InputConfig, LossConfig, MetricsConfig, ModelConfig, References};
pub use set_captioner::{ImageCaptions, SetCaptioner};
pub use task::CaptionTask;
