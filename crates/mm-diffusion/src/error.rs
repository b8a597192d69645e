//! The errors of this crate.

use mm_core::one_line;
use std::path::{Path, PathBuf};

/// An error of a diffusion model, its folder, its schedule, its data or its training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer below failed.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// The data failed.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// A text encoder or a tokenizer failed.
    #[error(transparent)]
    Text(#[from] mm_text::Error),
    /// An image cannot be read or written.
    #[error(transparent)]
    Image(#[from] mm_image::Error),
    /// The parts of a model, or a model and its config, do not fit.
    #[error("model: {}", one_line(.0))]
    Model(String),
    /// A scheduler's config or use is not valid.
    #[error("scheduler: {}", one_line(.0))]
    Scheduler(String),
    /// What an image is to be made from is not valid: a size, a strength, a mask.
    #[error("{}", one_line(.0))]
    Request(String),
    /// A LoRA or a textual inversion file does not fit the model.
    #[error("{path}: {}", one_line(problem))]
    Lora {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of a model folder that cannot be used.
    #[error("{path}: {}", one_line(problem))]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A CLIP or its tokenizer failed.
    #[error(transparent)]
    Clip(#[from] mm_clip::Error),
    /// Another process of the run is lost.
    #[error(transparent)]
    Dist(#[from] mm_dist::Error),
    /// The training loop or an evaluation failed.
    #[error(transparent)]
    Train(Box<mm_train::Error>),
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// An [`Error::Folder`] at `path`.
    pub(crate) fn folder(path: &Path, problem: impl Into<String>) -> Self {
        Self::Folder { path: path.to_owned(), problem: problem.into() }
    }
}

/// A result, with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<mm_train::Error> for Error {
    fn from(error: mm_train::Error) -> Self {
        Self::Train(Box::new(error))
    }
}

impl From<Error> for mm_train::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => Self::Core(error),
            Error::Dist(error) => Self::Dist(error),
            Error::Data(error) => Self::Data(error),
            Error::Train(error) => *error,
            error => Self::task(error),
        }
    }
}

impl From<mm_vision::Error> for Error {
    fn from(error: mm_vision::Error) -> Self {
        Self::Model(error.to_string())
    }
}
