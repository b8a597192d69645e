//! What can go wrong with data, each said with its place and a way out.

use std::path::{Path, PathBuf};

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
    /// Bytes that are no whole image of a known format.
    #[error("cannot decode the image: {reason}")]
    Decode {
        /// What the decoder found.
        reason: String,
    },
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
    #[error("`{name}`: epoch {epoch} gave no batch of {batch_size}: only {good} of {len} samples can be read")]
    NoBatch {
        /// The source.
        name: String,
        /// The epoch, from 0.
        epoch: u64,
        /// The batch size asked for.
        batch_size: usize,
        /// Readable samples of the epoch.
        good: usize,
        /// All samples of the epoch.
        len: usize,
    },
    /// The loader's threads are gone.
    #[error("`{name}`: the loader's worker threads ended early: this is a bug of mm-data")]
    WorkersGone {
        /// The source.
        name: String,
    },
    /// What a loader's `map` found wrong with a sample, in its own words.
    #[error("{0}")]
    Sample(String),
}

impl Error {
    /// An [`Error::Io`] of a path, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn listed(first: &[String]) -> String {
    format!("First: {}", first.join("; "))
}
