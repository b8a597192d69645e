//! Metrics of captions against references: BLEU, ROUGE-L, CIDEr and distinct-n, as pycocoevalcap 1.2
//! computes them, without Java and Python. `docs/caption-metrics.md` has their definitions and the peer's
//! peculiarities.
//!
//! [`read_captions`] reads files, [`CaptionMetrics`] measures them. [`ptb`] makes tokens of captions as the
//! peer does; the metrics are functions of tokenized captions: [`BleuStatistics`], [`rouge_l`], [`distinct`],
//! and [`Cider`] with [`DocumentFrequencies`], which is also a reward for training:
//!
//! ```
//! use std::sync::Arc;
//!
//! use mm_caption::metrics::{Cider, CiderForm, DocumentFrequencies, ptb};
//!
//! let corpus = [vec!["A dog runs.", "The dog is running."], vec!["A cat sits."], vec!["Two buses."]];
//! let tokens = corpus.map(|references| references.into_iter().map(ptb::tokenize).collect::<Vec<_>>());
//! let cider = Cider::new(Arc::new(DocumentFrequencies::from_references(&tokens)), CiderForm::Robust);
//! let references = cider.prepare(&tokens[0]);
//! let [close, far] = ["a dog runs", "a cat sits"].map(|caption| cider.score(caption, &references));
//! assert!(close > far);
//! ```
//!
//! To add a metric, write it as a function of tokens in a file here, and give it a name in `report.rs`.

mod bleu;
pub mod chair;
mod cider;
mod clip_score;
mod distinct;
mod document_frequencies;
mod error;
mod files;
pub mod meteor;
mod ngrams;
pub mod ptb;
mod report;
mod rouge;
pub mod scenes;

pub use bleu::BleuStatistics;
pub use cider::{Cider, CiderForm, PreparedReferences};
pub(crate) use clip_score::cosines_at;
pub use clip_score::{CLIP_SCORE_PROMPT, CLIP_SCORE_WEIGHT, clip_scores, ref_clip_scores};
pub use distinct::distinct;
pub use document_frequencies::{DocumentFrequencies, FEW_IMAGES};
pub use error::MetricsError;
pub use files::{CaptionedImage, Captions, MissingHypotheses, read_captions};
pub use report::{CaptionMetrics, ImageScores, Scores, TokenizedCaptions};
pub use rouge::rouge_l;
