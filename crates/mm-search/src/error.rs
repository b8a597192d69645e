//! The errors of this crate.

use mm_core::one_line;
use std::path::{Path, PathBuf};

/// An error of an index or of a query to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer below failed.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// The data failed.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// The model that embeds failed.
    #[error(transparent)]
    Clip(#[from] mm_clip::Error),
    /// The pass over the data set failed.
    #[error(transparent)]
    Train(Box<mm_train::Error>),
    /// Another process is lost.
    #[error(transparent)]
    Dist(#[from] mm_dist::Error),
    /// A file of an index cannot be used.
    #[error("the index {}: {}", path.display(), one_line(problem))]
    Index {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A filter that cannot be read.
    #[error("the filter `{filter}`, at character {position}: {problem}")]
    Filter {
        /// The filter.
        filter: String,
        /// Where, counted from 1.
        position: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A query that has no answer.
    #[error("the query: {0}")]
    Query(String),
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// An error of the index in the folder `path`.
    pub(crate) fn index(path: &Path, problem: impl ToString) -> Self {
        Self::Index { path: path.to_owned(), problem: problem.to_string() }
    }
}

impl From<mm_train::Error> for Error {
    fn from(error: mm_train::Error) -> Self {
        Self::Train(Box::new(error))
    }
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
