//! The metrics of answers to questions about images. Plain functions of texts and numbers, without tensors.

mod accuracy;
pub mod baselines;
pub mod calibration;
pub mod choice;
pub mod clevr;
mod error;
pub mod gqa;
mod id;
mod json;
pub mod leakage;
mod matching;
pub mod medical;
pub mod pope;
mod predictions;
pub mod vqa;
mod words;

pub use accuracy::{Accuracy, Group, NO_GROUP};
pub use error::{Error, Result};
pub use id::Id;
pub use matching::{Finding, FindingKind, Findings, OnProblem, Predicted};
pub use predictions::{Prediction, read_predictions, write_gqa_results, write_vqa_results};
