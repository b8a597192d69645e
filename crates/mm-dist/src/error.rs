use std::time::Duration;

/// Why processes cannot work together, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launch environment contradicts itself.
    #[error("launch environment: {0}")]
    Environment(String),
    /// The processes did not find each other.
    #[error("{0}")]
    Rendezvous(String),
    /// A process ended, stopped answering, or was left by a failed one.
    #[error(
        "another process of the run ended or does not answer ({problem}): its own error says why; the last checkpoint is whole"
    )]
    Lost {
        /// What the engine said.
        problem: String,
    },
    /// A process has not what rank 0 has.
    #[error("the processes differ in their {what}: {processes}; give all of them the same")]
    Differs {
        /// In what: the configuration, the model, the data.
        what: &'static str,
        /// Which, and wherein.
        processes: String,
    },
    /// libtorch refused an operation.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

/// How the shim marks what a collective threw (`shim/c10d.h`).
const MARK: &str = "collective failed: ";

impl Error {
    /// Whether this process failed only because another one did.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// What a collective, or a backward pass with collectives inside, said.
    pub fn from_torch(text: &str) -> Self {
        match text.split_once(MARK) {
            Some((_, problem)) => Self::Lost { problem: without_advice(problem) },
            None => Self::Core(mm_core::Error::Shim(mm_sys::Error(first_line(text)))),
        }
    }

    pub(crate) fn rendezvous(problem: impl Into<String>) -> Self {
        Self::Rendezvous(problem.into())
    }
}

impl From<mm_sys::Error> for Error {
    fn from(error: mm_sys::Error) -> Self {
        Self::from_torch(&error.0)
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::from_torch(&error.to_string())
    }
}

/// Gloo's own words, without where in its sources they stand and without the advice that it adds.
fn without_advice(problem: &str) -> String {
    let line = first_line(problem);
    let words =
        line.split_once("] ").filter(|(place, _)| place.starts_with('[')).map_or(&*line, |(_, words)| words);
    words.split(". ").next().unwrap_or(words).trim_end_matches('.').to_owned()
}

pub(crate) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("no reason given").trim().to_owned()
}

pub(crate) fn seconds(timeout: Duration) -> String {
    format!("{:.0} s", timeout.as_secs_f64())
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_collective_is_told_from_other_errors_in_its_own_words() {
        let said = "Torch: collective failed: [src/pair.cc:534] Connection closed by peer [10.0.0.1]:4000. This means much.\nmore";
        let error = Error::from_torch(said);
        assert!(error.is_lost());
        assert!(error.to_string().contains("(Connection closed by peer [10.0.0.1]:4000)"), "{error}");
        assert!(!Error::from_torch("shapes do not match").is_lost());
    }
}
