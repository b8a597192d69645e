//! What can go wrong with data, each said with its place and a way out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The result of everything in this crate that reads data.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Its message is one line: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read or write a path.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An image that cannot be decoded.
    #[error(transparent)]
    Image(#[from] mm_image::Error),
    /// One line of a CSV, TSV or JSON-lines file is no sample.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A column that the config names is not in the file.
    #[error(
        "{}: no column `{column}`; the file has {}: name one of these in the data config",
        path.display(),
        quoted(present)
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns that are there.
        present: Vec<String>,
    },
    /// A setting that cannot work.
    #[error("{0}")]
    Setting(String),
    /// A source without one sample.
    #[error("`{name}` has no samples: {hint}")]
    Empty {
        /// The source.
        name: String,
        /// Where to look.
        hint: String,
    },
    /// More samples are bad than the config allows.
    #[error(
        "`{name}`: {count} bad samples, more than max_bad_samples = {allowed}: repair them or raise the limit. {}",
        listed(first)
    )]
    TooManyBad {
        /// The source.
        name: String,
        /// How many different samples were bad.
        count: usize,
        /// How many are allowed.
        allowed: usize,
        /// The first ten of this process, as `key: reason`.
        first: Vec<String>,
    },
    /// A saved position that belongs to other data.
    #[error(
        "the saved position is of a data set with {saved} samples, but `{name}` has {present}: \
         resume with the data that the run began with, or begin a new run"
    )]
    OtherData {
        /// The source.
        name: String,
        /// Samples when the position was saved.
        saved: usize,
        /// Samples now.
        present: usize,
    },
    /// A whole epoch went by without a batch.
    #[error("`{name}`: epoch {epoch} gave no batch: none of its samples can be read")]
    NoBatch {
        /// The source.
        name: String,
        /// The epoch, from 0.
        epoch: u64,
    },
    /// Nothing but bad samples, one after the other.
    #[error("`{name}`: {tried} samples in a row cannot be read: see what was said of each above")]
    NothingGood {
        /// The source.
        name: String,
        /// How many were tried.
        tried: usize,
    },
    /// A stream that cannot be read again ended.
    #[error("`{name}` ended after {samples} samples: feed it more, or train fewer steps")]
    StreamEnded {
        /// The source.
        name: String,
        /// Samples read.
        samples: u64,
    },
    /// The loader's threads are gone.
    #[error("the loader's worker threads ended early: this is a bug of mm-data")]
    WorkersGone,
    /// A model gave no score.
    #[error("the CLIP score cannot be computed: {0}")]
    Score(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is wrong with one sample, in the words of its reader or of a loader's `map`.
    #[error("{reason}")]
    Bad {
        /// What kind of fault it is, for the tally.
        fault: Fault,
        /// What was found.
        reason: String,
    },
}

/// The kinds of what can be wrong with a sample: the tally of an epoch counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A file that is gone or cannot be read.
    File,
    /// A shard that is gone, cut off or no tar.
    Shard,
    /// A command that failed.
    Pipe,
    /// Bytes that are no whole image.
    Image,
    /// A field that a tar has twice for one key, and no two samples.
    Repeated,
    /// No image where one belongs.
    NoImage,
    /// No caption where one belongs.
    NoCaption,
    /// Text that is not UTF-8.
    Text,
    /// JSON that is none, or says something else than its kind should.
    Json,
    /// A row of a table that does not fit its header.
    Row,
    /// A decoder that panicked.
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
    /// An [`Error::Bad`] of a sample.
    pub fn bad(fault: Fault, reason: impl Into<String>) -> Self {
        Self::Bad { fault, reason: reason.into() }
    }

    /// What kind of fault this is, where it is a sample's.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } => Fault::File,
            Self::Image(mm_image::Error::Decode { .. }) => Fault::Image,
            Self::Line { .. } => Fault::Row,
            Self::Bad { fault, .. } => *fault,
            _ => Fault::Other,
        }
    }

    /// What `work` on a sample returns; a panic of a decoder in it is the sample's error.
    pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            Err(Self::bad(Fault::Panic, format!("panicked: {}", said_by(&*panic).unwrap_or_default())))
        })
    }

    /// An [`Error::Io`] of a path, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }
}

/// The words of a panic, if it has any.
pub(crate) fn said_by(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied())
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn listed(first: &[String]) -> String {
    format!("First: {}", first.join("; "))
}
