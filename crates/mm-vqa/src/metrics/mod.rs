//! The metrics of answers to questions about images. Plain functions of texts and numbers, without tensors.

mod accuracy;
mod error;
mod id;
mod json;
mod matching;
mod predictions;
pub mod vqa;

pub use accuracy::{Accuracy, Group, NO_GROUP};
pub use error::{Error, Result};
pub use id::Id;
pub use matching::{Finding, FindingKind, Findings, OnProblem, Predicted};
pub use predictions::{Prediction, read_predictions, write_gqa_results, write_vqa_results};
