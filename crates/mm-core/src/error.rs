//! The errors of this crate.

use crate::config::ConfigError;
use std::path::{Path, PathBuf};

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation: "read", "write", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file or folder has the wrong content.
    #[error("{path}: {}", one_line(problem))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The file of a checkpoint is damaged or does not belong to the model.
    #[error("checkpoint {path}: {problem}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The name of a model cannot be resolved to a folder.
    #[error("model {name}: {problem}")]
    Hub {
        /// The name as given.
        name: String,
        /// The reason, and what to do.
        problem: String,
    },
    /// LoRA's settings or adapters do not fit the model.
    #[error("lora: {}", one_line(.0))]
    Lora(String),
    /// The device is not available.
    #[error("device {device:?}: {problem}")]
    Device {
        /// The device as configured.
        device: String,
        /// The reason.
        problem: &'static str,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
    /// The shim over libtorch refused an operation.
    #[error(transparent)]
    Shim(#[from] mm_sys::Error),
}

impl Error {
    /// An [`Error::Io`]: `action` ("read", "write", ...) on `path` failed with `source`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// An [`Error::Checkpoint`] at `path`.
    pub fn checkpoint(path: &Path, problem: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.to_owned(), problem: one_line(&problem.into()) }
    }
}

/// `text` with its control characters escaped: names in a file may contain them, and a message is one line
/// without terminal commands.
pub fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
