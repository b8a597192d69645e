//! The errors of a server that cannot start.

use mm_core::config::ConfigError;
use mm_core::one_line;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An error of a server that cannot start. Errors of requests are answers: see the documentation of the API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The models file is not valid.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The file of keys cannot be used.
    #[error("{}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Keys {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where it is one that is wrong.
        line: Option<usize>,
        /// What is wrong, without the line's text: it may hold a key.
        problem: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A thread or the runtime cannot be started.
    #[error("cannot start the server: {0}")]
    Start(std::io::Error),
    /// A model cannot be opened.
    #[error("cannot open [models.{name}]: {}", one_line(problem))]
    Model {
        /// Its name.
        name: String,
        /// The error of its crate.
        problem: String,
    },
    /// An index cannot be opened, or its model is not the one that is served.
    #[error("cannot open [indexes.{name}]: {}", one_line(problem))]
    Index {
        /// Its name.
        name: String,
        /// The error of `mm-search`.
        problem: String,
    },
}

/// A result with this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;
