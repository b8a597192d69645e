use std::path::PathBuf;

/// Why a run did not start or did not end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer below failed.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// The task failed: its data, its model or its evaluation.
    #[error(transparent)]
    Task(Box<dyn std::error::Error + Send + Sync>),
    /// The run's folder is taken.
    #[error("run folder {0} exists: continue it with --resume latest, or choose another run.name")]
    RunExists(PathBuf),
    /// There is nothing to resume from.
    #[error("no checkpoint to resume from at {0}: start the run without --resume")]
    NothingToResume(PathBuf),
    /// A checkpoint's `state.json` cannot be read.
    #[error("checkpoint state {path}: {problem}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The loss is no number.
    #[error(
        "loss is {loss} at step {step}: lower train.lr, set train.clip_grad, or look at the data; the last checkpoint is whole"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// NaN or an infinity.
        loss: f64,
    },
}

impl Error {
    /// An [`Error::Task`].
    pub fn task(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Task(Box::new(error))
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
