//! The errors of this crate.

use std::path::{Path, PathBuf};

/// The reasons that a run does not start or does not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer below failed.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// The task failed: its data, its model or its evaluation.
    #[error(transparent)]
    Task(Box<dyn std::error::Error + Send + Sync>),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// A set cannot be evaluated.
    #[error("evaluation: {0}")]
    Evaluation(String),
    /// Communication between the processes failed.
    #[error(transparent)]
    Dist(#[from] mm_dist::Error),
    /// The data of another process failed, and all processes stopped together.
    #[error("stopped because the data of another process failed: see the error of that process")]
    Stopped,
    /// A process cannot read the folder that rank 0 writes to.
    #[error(
        "rank {rank} cannot read {path}, which rank 0 wrote: run.out must be a folder that all nodes share"
    )]
    NotShared {
        /// The rank that cannot read it.
        rank: usize,
        /// The checkpoint that rank 0 resumes from.
        path: PathBuf,
    },
    /// The run's folder exists already.
    #[error("run folder {0} exists: continue with --resume latest, or choose another run.name")]
    RunExists(PathBuf),
    /// Another process trains in the run's folder.
    #[error(
        "another process trains in the run folder {0}: wait for it to end, or choose another run.name; if \
         there is \
         none, as after a crash of a node, remove {0}/.lock"
    )]
    RunBusy(PathBuf),
    /// A finished run has no checkpoints any more.
    #[error(
        "run {0} is finished: model/ exists, but no checkpoint to resume from; choose another run.name, or \
         remove \
         the folder to train again"
    )]
    NothingToResume(PathBuf),
    /// The checkpoint to resume from is damaged or missing.
    #[error("checkpoint {path}: {problem}; {hint}")]
    BrokenCheckpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// How to continue from an earlier complete checkpoint.
        hint: String,
    },
    /// All steps are done, and the model cannot be written.
    #[error(
        "the model cannot be saved: {source}; no step is lost: {checkpoint} is complete. After the repair, \
         --resume \
         latest writes the model, or `mm convert --from {checkpoint} --to DIR` writes it elsewhere"
    )]
    ModelNotSaved {
        /// The last checkpoint.
        checkpoint: PathBuf,
        /// Why it cannot be written.
        source: Box<Error>,
    },
    /// A checkpoint's `state.json` cannot be read.
    #[error("checkpoint state {path}: {problem}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The loss is not finite.
    #[error(
        "loss is {loss} at step {step}: lower train.lr, set train.clip_grad, or look at the data; {}",
        kept(.checkpoint.as_deref())
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// NaN or an infinity.
        loss: f64,
        /// The last checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
}

/// What is left of a run that ended early.
fn kept(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(checkpoint) => format!("the last checkpoint is {}", checkpoint.display()),
        None => "there is no checkpoint yet".to_owned(),
    }
}

impl Error {
    /// An [`Error::Task`].
    pub fn task(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Task(Box::new(error))
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
