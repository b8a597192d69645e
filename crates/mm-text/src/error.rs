//! The errors of this crate.

use mm_core::one_line;
use std::path::PathBuf;
use thiserror::Error;

/// An error of a tokenizer, a config or a tower.
#[derive(Debug, Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A malformed file.
    #[error("{path}: {}", one_line(reason))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A folder without any tokenizer file.
    #[error(
        "{0} holds no tokenizer: expected tokenizer.json, vocab.json and merges.txt, vocab.txt, or \
         spiece.model"
    )]
    NoTokenizer(PathBuf),
    /// An invalid config.
    #[error("{}", one_line(.0))]
    Config(String),
    /// A tokenizer that does not fit a tower.
    #[error("the tokenizer does not fit the text tower: {}", one_line(.0))]
    Mismatch(String),
    /// Texts cannot be generated with these settings.
    #[error("generation: {}", one_line(.0))]
    Generation(String),
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
    /// A tokenizer cannot be trained.
    #[error("cannot train a tokenizer: {0}")]
    Training(String),
    /// A tokenizer without an end token, or a text that it has no tokens for.
    #[error("tokenizer: {}", one_line(.0))]
    Tokenizer(String),
}

impl From<mm_core::Error> for Error {
    fn from(error: mm_core::Error) -> Self {
        match error {
            mm_core::Error::Io { path, source, .. } => Self::Io { path, source },
            mm_core::Error::File { path, problem } => Self::Format { path, reason: problem },
            other => Self::Config(other.to_string()),
        }
    }
}

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;
