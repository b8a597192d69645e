//! The metrics of answers to questions about images: functions of texts and numbers, without tensors.
//! `docs/vqa-metrics.md` has their definitions and the peculiarities of the published programs.
//!
//! - Sets with published rules: [`vqa`] (VQA v2's soft accuracy), [`gqa`], [`clevr`], [`pope`]; [`choice`] by
//!   letter and [`medical`] open and closed questions by parsers of this crate. Each reads the set's files,
//!   takes [`Prediction`]s and gives a report that serializes.
//! - Documents and charts: [`docvqa`] by [`anls`], [`chartqa`] by [`relaxed`] accuracy, and [`document`] for
//!   fields that are read.
//! - What makes an accuracy honest: [`baselines`] without the image, and [`calibration`] with abstention.
//!   What
//!   two splits share is [`mm_data::Overlap`]'s.
//! - Files that do not correspond: [`Findings`] count and name it, and [`OnProblem`] says whether to go on.
//!
//! ```
//! use mm_vqa::metrics::vqa::{AnsweredQuestion, Protocol, VqaAccuracy, VqaSet};
//! use mm_vqa::metrics::{OnProblem, Prediction};
//!
//! let answers = ["2", "two", "2", "3", "2", "2", "2", "2", "2", "2"].map(String::from).to_vec();
//! let question = AnsweredQuestion { answers, ..AnsweredQuestion::default() };
//! let set = VqaSet { questions: vec![("1".into(), question)], ..VqaSet::default() };
//! let predictions = [Prediction { question_id: "1".into(), answer: "Two.".into(), confidence: None }];
//! let report = VqaAccuracy::new(Protocol::Official, set, &predictions, OnProblem::Refuse)?;
//! assert_eq!(report.overall.percent, 100.0);
//! # Ok::<(), mm_vqa::metrics::Error>(())
//! ```
//!
//! A new set is a file here with a reader of its questions and a report, a variant in `mm eval vqa`, and a
//! line in the table of the page.

mod accuracy;
pub mod anls;
pub mod baselines;
pub mod calibration;
pub mod chartqa;
pub mod choice;
pub mod clevr;
pub mod document;
pub mod docvqa;
mod error;
pub mod gqa;
mod id;
mod json;
mod matching;
pub mod medical;
pub mod pope;
mod predictions;
mod python;
pub mod relaxed;
pub mod vqa;
mod words;

pub use accuracy::{Accuracy, Group, NO_GROUP};
pub use error::{Error, Result};
pub use id::Id;
pub use matching::{Finding, FindingKind, Findings, OnProblem, Predicted};
pub use predictions::{Prediction, read_predictions, write_gqa_results, write_vqa_results};
