//! Errors of metrics.

use mm_core::one_line;
use std::path::{Path, PathBuf};

/// The reasons that a metric has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The features cannot be measured.
    #[error("{}", one_line(.0))]
    Features(String),
    /// A file of prompts is not what it should be.
    #[error("{}: {}", path.display(), one_line(problem))]
    Prompts {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what to do.
        problem: String,
    },
    /// A CLIP or its tokenizer failed.
    #[error(transparent)]
    Clip(#[from] mm_clip::Error),
    /// The images cannot be read.
    #[error(transparent)]
    Read(Box<mm_train::Error>),
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
}

impl MetricsError {
    /// A file of prompts with a problem.
    pub(super) fn prompts(path: &Path, problem: impl Into<String>) -> Self {
        Self::Prompts { path: path.to_owned(), problem: problem.into() }
    }
}

impl From<mm_train::Error> for MetricsError {
    fn from(error: mm_train::Error) -> Self {
        Self::Read(Box::new(error))
    }
}

/// A result with a [`MetricsError`].
pub type Result<T, E = MetricsError> = std::result::Result<T, E>;
