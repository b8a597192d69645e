//! Errors of reading answers and writing results.

use std::io;
use std::path::{Path, PathBuf};

use mm_core::one_line;

/// What went wrong with a file of questions, answers or predictions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// The operating system refuses to write a file.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {}", path.display(), one_line(problem))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what to do.
        problem: String,
    },
    /// Questions and predictions do not correspond, or numbers are out of their range.
    #[error("{}", one_line(.0))]
    Mismatch(String),
}

impl Error {
    /// A file with a problem.
    pub(super) fn invalid(path: &Path, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), problem: problem.into() }
    }
}

/// A result with this module's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
