//! The accuracy of VQA v2 and of sets with several human answers to a question (VQA v1, TextVQA, VizWiz,
//! OK-VQA).
//!
//! [`VqaSet::read`] reads the official files, [`VqaAccuracy`] measures predictions under a [`Protocol`], and
//! [`soft_targets`] are the same scores as targets for training:
//!
//! ```
//! use mm_vqa::metrics::vqa::{Consensus, Protocol, normalize, soft_targets};
//!
//! assert_eq!(normalize(Protocol::Official, "The two-lane road.").text, "2 lane road");
//! let answers = ["2", "two", "2", "3", "4", "4", "5", "6", "7", "8"];
//! let targets = soft_targets(Protocol::Official, Consensus::LeaveOneOut, &answers);
//! assert_eq!(targets[0].0, "2");
//! assert!((targets[0].1 - 0.9).abs() < 1e-12);
//! ```

mod characters;
mod consensus;
mod files;
mod normalize;
mod protocol;
mod report;
mod rules;
mod words;

pub use consensus::{Consensus, soft_targets};
pub use files::{AnsweredQuestion, VqaSet};
pub use normalize::{Normalized, clean, normalize};
pub use protocol::Protocol;
pub use report::{QuestionScore, Unanimous, VqaAccuracy};
pub use rules::{Example, Rule, RuleUse, Rules};
