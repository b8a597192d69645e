//! Visual question answering: models, training, metrics, medical questions.

mod error;
pub mod metrics;

pub use error::{Error, Result};
