//! The errors of distributed runs.

use std::error::Error as StdError;
use std::time::Duration;

/// Why processes cannot start or continue a run together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launch environment contradicts itself.
    #[error("launch environment: {0}")]
    Environment(String),
    /// The processes did not form a group.
    #[error("{0}")]
    Rendezvous(String),
    /// A collective failed: another process exited, was killed, or did not respond within the timeout.
    #[error("another process of the run exited or does not respond ({0}): see its own error")]
    Lost(#[source] LostProcess),
    /// A process has another value than rank 0 where all must agree.
    #[error("the processes differ in their {what}: {processes}; give all of them the same")]
    Differs {
        /// The value: the configuration, the model, the data.
        what: &'static str,
        /// The ranks that differ, and how.
        processes: String,
    },
    /// libtorch refused an operation.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

/// The failure of another process, as the backend reports it. It is the source of [`Error::Lost`], so that
/// [`is_lost`] finds it below any error that wraps one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LostProcess(String);

/// Whether `error`, or an error in its chain of sources, is the failure of another process: then this process
/// failed only as a consequence.
pub fn is_lost(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|error| error.is::<LostProcess>())
}

/// The prefix that the shim puts before the message of a failed collective (`shim/c10d.h`).
const MARK: &str = "collective failed: ";

impl Error {
    /// Whether this process failed only because another one did.
    pub fn is_lost(&self) -> bool {
        is_lost(self)
    }

    /// The error for the message of a collective, or of a backward pass with collectives inside.
    pub fn from_torch(text: &str) -> Self {
        match text.split_once(MARK) {
            Some((_, problem)) => Self::Lost(LostProcess(without_advice(problem))),
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

/// Gloo's message without the place in its sources and without the advice that it appends.
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

    const FAILED: &str = "Torch: collective failed: [src/pair.cc:534] \
        Connection closed by peer [10.0.0.1]:4000. This means much.\nmore";

    #[test]
    fn a_failed_collective_keeps_the_message_of_the_backend() {
        let error = Error::from_torch(FAILED);
        assert!(error.is_lost());
        assert!(error.to_string().contains("(Connection closed by peer [10.0.0.1]:4000)"), "{error}");
        assert!(!Error::from_torch("shapes do not match").is_lost());
    }

    #[test]
    fn a_lost_process_is_found_below_any_error_that_wraps_it() {
        #[derive(Debug, thiserror::Error)]
        enum Outer {
            #[error(transparent)]
            Dist(#[from] Error),
            #[error("step 3 failed")]
            Step(#[source] Box<Outer>),
        }
        let wrapped = Outer::Step(Box::new(Outer::Dist(Error::from_torch(FAILED))));
        assert!(is_lost(&wrapped));
        assert!(!is_lost(&Outer::Dist(Error::rendezvous("rank 1 joined twice"))));
    }
}
