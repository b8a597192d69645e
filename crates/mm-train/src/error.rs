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
    /// The processes of the run cannot work together, or no longer.
    #[error(transparent)]
    Dist(#[from] mm_dist::Error),
    /// Another process's data failed, and all stopped together.
    #[error("stopped with another process of the run, whose data failed: its own error says why")]
    Stopped,
    /// A process does not see the folder that rank 0 writes to.
    #[error(
        "rank {rank} does not see {path}, which rank 0 reads: run.out must be a folder that all nodes share"
    )]
    NotShared {
        /// The process that does not see it.
        rank: usize,
        /// What rank 0 resumes from.
        path: PathBuf,
    },
    /// The run's folder is taken.
    #[error("run folder {0} exists: go on with --resume latest, or choose another run.name")]
    RunExists(PathBuf),
    /// Another process trains in the run's folder.
    #[error(
        "another process trains in the run folder {0}: wait for its end, or choose another run.name; where none does, as after a node's crash, \
         remove {0}/.lock"
    )]
    RunBusy(PathBuf),
    /// A run has ended, and its checkpoints are gone.
    #[error(
        "run {0} has ended: its model/ is there and its checkpoints are gone, so there is nothing to resume; choose another run.name, or \
         remove the folder to train anew"
    )]
    NothingToResume(PathBuf),
    /// The checkpoint to resume from is broken or gone.
    #[error("checkpoint {path}: {problem}; {way_out}")]
    BrokenCheckpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The whole one before it, and how to go on from that.
        way_out: String,
    },
    /// All steps are done, and the model cannot be written.
    #[error(
        "the run's model cannot be saved: {source}; no step is lost: {checkpoint} is whole. Once that is mended, --resume latest writes the \
         model, or `mm convert --from {checkpoint} --to DIR` makes it elsewhere"
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
    /// Whether this process stopped only because another one did.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Dist(error) if error.is_lost()) || matches!(self, Self::Stopped)
    }

    /// An [`Error::Task`].
    pub fn task(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Task(Box::new(error))
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
