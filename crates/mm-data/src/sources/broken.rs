//! Invalid entries of a data set, found when the set is opened.

use crate::{Error, Fault, Result};

/// An invalid entry of a data set. It takes a place among the samples, so that the loader counts it and the
/// numbers of read and skipped samples add up to all entries.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) fault: Fault,
    /// The entry and its problem: `annotations[7]: missing field ...`.
    pub(crate) reason: String,
}

impl Broken {
    pub(crate) fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault, reason: shortened(reason.into()) }
    }

    /// The error of the sample, with its file.
    pub(crate) fn error(&self, file: &str) -> Error {
        Error::bad(self.fault, format!("{file}: {}", self.reason))
    }
}

/// Shortens a reason for logs: parsers quote their input, which may be a caption or a whole file.
pub(crate) fn shortened(mut reason: String) -> String {
    const LONGEST: usize = 300;
    if reason.len() > LONGEST {
        reason.truncate(reason.floor_char_boundary(LONGEST));
        reason.push('…');
    }
    reason
}

/// Checks that at least one entry is valid.
///
/// # Errors
/// No entry, or no valid one.
pub(crate) fn check_some<T>(name: &str, entries: &[std::result::Result<T, Broken>]) -> Result<()> {
    if entries.iter().any(|entry| entry.is_ok()) {
        return Ok(());
    }
    // A wrong field is the most useful reason: captions without text leave images without captions.
    let broken = || entries.iter().filter_map(|entry| entry.as_ref().err());
    let hint = match broken().find(|broken| broken.fault == Fault::Json).or(broken().next()) {
        None => "the file lists none".to_owned(),
        Some(first) => format!("none of its {} entries is valid; the first: {}", entries.len(), first.reason),
    };
    Err(Error::Empty { name: name.to_owned(), hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("é".repeat(150)), "é".repeat(150));
        assert_eq!(shortened(format!("x{}", "é".repeat(150))), format!("x{}…", "é".repeat(149)));
    }
}
