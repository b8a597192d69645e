//! Visual question answering: models, training, metrics, medical questions.

pub mod co_attention;
mod error;
pub mod metrics;

pub use error::{Error, Result};
