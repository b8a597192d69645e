//! The errors of this crate.

use mm_core::one_line;
use std::path::PathBuf;

/// An error of a reward (its model, its config, or its scores) or of training by it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer below failed.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// An image tower or its preprocessing failed.
    #[error(transparent)]
    Vision(#[from] mm_vision::Error),
    /// A text encoder or its tokenizer failed.
    #[error(transparent)]
    Text(#[from] mm_text::Error),
    /// A CLIP failed.
    #[error(transparent)]
    Clip(#[from] mm_clip::Error),
    /// A captioner failed.
    #[error(transparent)]
    Caption(Box<mm_caption::Error>),
    /// The judge of scenes failed.
    #[error(transparent)]
    Diffusion(Box<mm_diffusion::Error>),
    /// The training loop or the data failed.
    #[error(transparent)]
    Train(Box<mm_train::Error>),
    /// Communication between the processes failed.
    #[error(transparent)]
    Dist(#[from] mm_dist::Error),
    /// A config is not valid.
    #[error("{}", one_line(.0))]
    Config(String),
    /// A file of a reward model cannot be used.
    #[error("{}: {}", path.display(), one_line(problem))]
    Folder {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Images and prompts cannot be scored.
    #[error("{}", one_line(.0))]
    Request(String),
    /// A reward gives a wrong number of scores.
    #[error("the reward {reward} gives {scores} scores of {images} images")]
    Count {
        /// The name of the reward.
        reward: String,
        /// The scores that it gives.
        scores: usize,
        /// The scores that it must give.
        images: usize,
    },
    /// A score is NaN or infinite.
    #[error(
        "the reward {reward} gives {score} for image {index} ({:?}): its weights are broken",
        one_line(prompt)
    )]
    NotFinite {
        /// The name of the reward.
        reward: String,
        /// The score.
        score: f32,
        /// The place of the image, from 0.
        index: usize,
        /// The prompt of the image.
        prompt: String,
    },
    /// A reward has no gradient.
    #[error("the reward {reward} is not differentiable: rewards computed by a model on pixels are")]
    NotDifferentiable {
        /// The name of the reward.
        reward: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
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
            Error::Train(error) => *error,
            error => Self::task(error),
        }
    }
}

impl From<mm_caption::Error> for Error {
    fn from(error: mm_caption::Error) -> Self {
        Self::Caption(Box::new(error))
    }
}

impl From<mm_diffusion::Error> for Error {
    fn from(error: mm_diffusion::Error) -> Self {
        Self::Diffusion(Box::new(error))
    }
}
