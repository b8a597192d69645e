//! Errors of reading captions and writing results.

use std::io;
use std::path::{Path, PathBuf};

use mm_core::one_line;

/// What went wrong with a file of captions or of frequencies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The operating system refuses to read or write a file.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// "read" or "write".
        verb: &'static str,
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
}

impl MetricsError {
    /// A file with a problem.
    pub(super) fn invalid(path: &Path, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), problem: problem.into() }
    }
}

pub(super) fn read_error(path: &Path, source: io::Error) -> MetricsError {
    MetricsError::Io { verb: "read", path: path.to_owned(), source }
}

pub(super) fn write_error(path: &Path, source: io::Error) -> MetricsError {
    MetricsError::Io { verb: "write", path: path.to_owned(), source }
}
