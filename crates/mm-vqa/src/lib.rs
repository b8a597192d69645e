//! Visual question answering: models, training, honest metrics, medical questions.
//!
//! A [`VqaPipeline`] is a model with its preprocessing, tokenizer and answers: a classifier of answers from
//! [`co_attention`], or a BLIP or ViLT of transformers. An [`Answerer`] finds answers with it.
//!
//! ```no_run
//! use mm_core::OpenOptions;
//! use mm_vqa::{AnswerMode, Answerer, VqaPipeline};
//!
//! let pipeline = VqaPipeline::open("Salesforce/blip-vqa-base", &OpenOptions::default())?;
//! let image = mm_image::decode(&std::fs::read("photo.jpg")?, [255; 3])?;
//! let questions = pipeline.questions(&["How many dogs are there?", "Is it raining?"], vec![0, 0])?;
//! let states = pipeline.encode(&[image])?; // the image is read once for both questions
//! let answerer = Answerer::new(&pipeline, &AnswerMode::Default, 5)?;
//! for answers in answerer.answer(&states, &questions)? {
//!     println!("{} ({:.0} %)", answers[0].answer, 100.0 * answers[0].probability);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Honest numbers
//!
//! An accuracy says little by itself: a set may be answered without its images. An evaluation gives beside
//! every accuracy that of the model without the image and those of the most frequent answers ([`metrics`]),
//! how far its probabilities are true, and what it gains by abstaining.
//!
//! No clinical use is meant, whatever a model is trained on.
//!
//! # To extend
//!
//! - A fusion of image and question: a file in `co_attention/` and a variant of its config.
//! - A family of checkpoints: a file in `folder/`, a variant of [`VqaConfig`] and of [`VqaModel`], a golden.
//! - A metric: a file in `metrics/`.

mod answering;
mod answers;
mod attention;
mod batch;
mod blip;
pub mod co_attention;
pub mod document;
mod error;
mod evaluate;
mod folder;
mod images;
mod init_from;
pub mod metrics;
mod model;
mod pipeline;
mod questions;
mod report;
mod rollout;
mod run_config;
mod sections;
mod set_answerer;
mod task;
mod training_questions;
mod vilt;
pub mod vlm;

pub use answering::{Answer, AnswerMode, Answerer, NUM_CANDIDATES};
pub use answers::{Answers, AnswersConfig};
pub use attention::{AnswerAttention, answer_attention};
pub use batch::{VqaBatch, VqaItem};
pub use blip::{BlipVqa, BlipVqaConfig, QuestionToken};
pub use error::{Error, Result};
pub use folder::{ClassifierConfig, VqaConfig, VqaFolder, VqaParts};
pub use images::{ImageBatch, VqaProcessor};
pub use model::{ImageStates, VqaModel};
pub use pipeline::VqaPipeline;
pub use questions::QuestionBatch;
pub use rollout::attention_rollout;
pub use run_config::{
    AnsweringBy, AnsweringConfig, InputConfig, LossConfig, LossKind, MetricsConfig, ModelConfig, VqaRunConfig,
};
pub use set_answerer::{QuestionAnswers, SetAnswerer};
pub use task::VqaTask;
pub use vilt::{Vilt, ViltConfig};
