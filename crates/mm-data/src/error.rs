//! The errors of this crate, and the kinds of faults of samples.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Its message is one line: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// An image that cannot be decoded.
    #[error(transparent)]
    Image(#[from] mm_image::Error),
    /// A line of a CSV, TSV, JSON lines or text file is not a valid sample.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: u64,
        /// The problem.
        reason: String,
    },
    /// A configured column is not in the file.
    #[error(
        "{}: no column `{column}`; the file has {}: set one of these in the data config",
        path.display(),
        quoted(present)
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The configured column.
        column: String,
        /// The columns of the file.
        present: Vec<String>,
    },
    /// A setting that is out of its range or does not fit the data.
    #[error("{0}")]
    Setting(String),
    /// A data set without samples.
    #[error("`{name}` has no samples: {hint}")]
    Empty {
        /// The source.
        name: String,
        /// The likely cause, or the place to look.
        hint: String,
    },
    /// More bad samples than the config allows.
    #[error(
        "`{name}`: {count} bad samples, more than max_bad_samples = {allowed}: repair them or raise the \
         limit. {}",
        listed(first)
    )]
    TooManyBad {
        /// The source.
        name: String,
        /// The number of different bad samples.
        count: usize,
        /// The allowed number.
        allowed: usize,
        /// The first ten of this process, each as `key: reason`.
        first: Vec<String>,
    },
    /// A saved position of another data set.
    #[error(
        "the saved position is of a data set with {saved} samples, but `{name}` has {present}: \
         resume with the original data, or start a new run"
    )]
    PositionMismatch {
        /// The source.
        name: String,
        /// The number of samples when the position was saved.
        saved: usize,
        /// The number of samples now.
        present: usize,
    },
    /// An epoch without a single batch.
    #[error("`{name}`: epoch {epoch} has no batch: none of its samples can be read")]
    NoBatch {
        /// The source.
        name: String,
        /// The epoch, from 0.
        epoch: u64,
    },
    /// Too many bad samples in a row.
    #[error("`{name}`: {tried} samples in a row cannot be read: see the warnings above")]
    NoGoodSample {
        /// The source.
        name: String,
        /// The number of samples tried.
        tried: usize,
    },
    /// The end of a stream that can be read only once.
    #[error("`{name}` ended after {samples} samples: provide more data, or train fewer steps")]
    StreamEnded {
        /// The source.
        name: String,
        /// The number of samples read.
        samples: u64,
    },
    /// The loader's threads have ended.
    #[error("the loader's worker threads ended early: this is a bug of mm-data")]
    WorkersLost,
    /// A model failed to compute a score.
    #[error("the CLIP score cannot be computed: {0}")]
    Score(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A sample that cannot be used, reported by its reader or by a loader's `map`.
    #[error("{reason}")]
    Bad {
        /// The kind of fault, for the tally.
        fault: Fault,
        /// The problem, for people.
        reason: String,
    },
}

/// The kinds of faults of samples. The tally of an epoch counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A file that is missing or cannot be read.
    File,
    /// A shard that is missing, truncated or not a tar.
    Shard,
    /// A shell command that failed.
    Pipe,
    /// Bytes that are not a complete image.
    Image,
    /// A tar with two members of one key and extension that are not two complete samples.
    Repeated,
    /// A missing image.
    NoImage,
    /// A missing caption.
    NoCaption,
    /// Text that is not UTF-8.
    Text,
    /// Invalid JSON, or JSON of another structure than expected.
    Json,
    /// An invalid row of a table.
    Row,
    /// A panic of a decoder.
    Panic,
    /// Anything else.
    Other,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "unreadable file",
            Self::Shard => "broken shard",
            Self::Pipe => "failed command",
            Self::Image => "corrupt image",
            Self::Repeated => "repeated member",
            Self::NoImage => "no image",
            Self::NoCaption => "no caption",
            Self::Text => "not UTF-8",
            Self::Json => "wrong JSON",
            Self::Row => "wrong row",
            Self::Panic => "decoder panic",
            Self::Other => "other",
        })
    }
}

impl Error {
    /// An [`Error::Bad`].
    pub fn bad(fault: Fault, reason: impl Into<String>) -> Self {
        Self::Bad { fault, reason: reason.into() }
    }

    /// The kind of fault that this error is for a sample.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } => Fault::File,
            Self::Image(mm_image::Error::Decode { .. }) => Fault::Image,
            Self::Line { .. } => Fault::Row,
            Self::Bad { fault, .. } => *fault,
            _ => Fault::Other,
        }
    }

    /// The result of `work` on a sample. A panic in it, such as a decoder's, becomes an error of the sample.
    pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            Err(Self::bad(Fault::Panic, format!("panicked: {}", panic_message(&*panic).unwrap_or_default())))
        })
    }

    /// An [`Error::Io`] of a path, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }
}

/// The message of a panic, if it has one.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied())
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn listed(first: &[String]) -> String {
    format!("First: {}", first.join("; "))
}
