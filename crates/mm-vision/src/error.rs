//! The errors of this crate.

use mm_core::one_line;
use std::path::PathBuf;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Its message is one line with the cause, the values and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid config of a tower.
    #[error("image tower: {}", one_line(.0))]
    Config(String),
    /// Preprocessing that is invalid or not supported.
    #[error("image processor: {}", one_line(.0))]
    Processor(String),
    /// An empty image.
    #[error("image {index} of the batch is {width} x {height} pixels: there is nothing to resize")]
    EmptyImage {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// An operation of libtorch failed.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file is not the expected JSON.
    #[error("{}: {}", path.display(), one_line(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        problem: String,
    },
}

impl From<mm_core::Error> for Error {
    fn from(error: mm_core::Error) -> Self {
        match error {
            mm_core::Error::Io { path, source, .. } => Self::Io { path, source },
            mm_core::Error::File { path, problem } => Self::File { path, problem },
            other => Self::Config(other.to_string()),
        }
    }
}
