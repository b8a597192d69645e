//! Visual question answering: models, training, metrics, medical questions.

mod answers;
mod attention;
mod batch;
pub mod co_attention;
mod error;
mod evaluate;
mod folder;
mod init_from;
mod lora_run;
pub mod metrics;
mod model;
mod pipeline;
mod report;
mod run_config;
mod sections;
mod set_answerer;
mod task;
mod training_questions;

pub use answers::{Answers, AnswersConfig};
pub use attention::{AnswerAttention, answer_attention};
pub use batch::{QuestionBatch, VqaBatch, VqaItem};
pub use error::{Error, Result};
pub use folder::{Description, VqaFolder};
pub use model::{VqaModel, VqaModelConfig};
pub use pipeline::{Answer, VqaPipeline};
pub use run_config::{InputConfig, LossConfig, LossKind, MetricsConfig, ModelConfig, VqaRunConfig};
pub use set_answerer::{QuestionAnswers, SetAnswerer};
pub use task::VqaTask;
