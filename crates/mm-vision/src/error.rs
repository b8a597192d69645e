//! What can go wrong with a tower or a processor.

use mm_core::one_line;
use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Its message is one line: what is wrong, with the numbers, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tower's config that no tower can be built from.
    #[error("image tower: {}", one_line(.0))]
    Config(String),
    /// A `preprocessor_config.json` that this crate cannot follow.
    #[error("image processor: {}", one_line(.0))]
    Processor(String),
    /// An image without pixels.
    #[error("image {index} of the batch is {width} x {height} pixels: there is nothing to resize")]
    EmptyImage {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not JSON of the form expected.
    #[error("{}: {}", path.display(), one_line(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// What the parser found, with line and column.
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
