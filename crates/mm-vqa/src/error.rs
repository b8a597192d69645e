//! The errors of this crate.

use mm_core::one_line;
use std::path::{Path, PathBuf};

/// An error of a question answering model, its folder, its data or its evaluation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer below failed.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// The data failed.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// The image tower or its preprocessing failed.
    #[error(transparent)]
    Vision(#[from] mm_vision::Error),
    /// The question encoder, the decoder, the tokenizer or the generation failed.
    #[error(transparent)]
    Text(#[from] mm_text::Error),
    /// A CLIP failed.
    #[error(transparent)]
    Clip(#[from] mm_clip::Error),
    /// Answers cannot be measured.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::Error),
    /// Another process of the run is lost.
    #[error(transparent)]
    Dist(#[from] mm_dist::Error),
    /// The parts of a model, or a model and its config, do not fit.
    #[error("model: {}", one_line(.0))]
    Model(String),
    /// A file of a model folder that cannot be used.
    #[error("{path}: {}", one_line(problem))]
    Folder {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The training loop or an evaluation failed.
    #[error(transparent)]
    Train(Box<mm_train::Error>),
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// The same, with the file that it is of where it does not name one.
    pub(crate) fn at(self, path: &Path) -> Self {
        use {mm_text::Error as Text, mm_vision::Error as Vision};
        let problem = match self {
            Self::Model(problem) => problem,
            Self::Vision(error @ (Vision::Config(_) | Vision::Processor(_))) => error.to_string(),
            Self::Text(
                error @ (Text::Config(_) | Text::Mismatch(_) | Text::Tokenizer(_) | Text::Generation(_)),
            ) => error.to_string(),
            error => return error,
        };
        Self::Folder { path: path.to_owned(), problem }
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

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
