//! Metrics of captions against references: BLEU, ROUGE-L, CIDEr and distinct-n, as pycocoevalcap 1.2 computes
//! them, without Java and Python.
//!
//! [`ptb`] makes tokens of captions as the peer's tokenizer does. The metrics are functions of tokenized
//! captions: [`BleuStatistics`], [`rouge_l`], [`Cider`] with [`DocumentFrequencies`], [`distinct`].
//! [`docs/caption-metrics.md`](https://github.com/) names their definitions and the peer's peculiarities.

mod bleu;
mod cider;
mod distinct;
mod document_frequencies;
mod error;
mod files;
mod ngrams;
pub mod ptb;
mod report;
mod rouge;

pub use bleu::BleuStatistics;
pub use cider::{Cider, CiderForm, PreparedReferences};
pub use distinct::distinct;
pub use document_frequencies::{DocumentFrequencies, FEW_IMAGES};
pub use error::MetricsError;
pub use files::{CaptionedImage, Captions, MissingHypotheses, read_captions};
pub use report::{CaptionMetrics, ImageScores, Scores, TokenizedCaptions};
pub use rouge::rouge_l;
