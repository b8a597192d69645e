//! What of a data set is no sample, found when the set is opened or a part of it is read.

use crate::{Error, Fault, Result};

/// Something of a data set that is no sample. It takes a place among the samples, so that it is counted when
/// the loader comes to it, and what there is equals what is read and what is skipped.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) fault: Fault,
    /// What it is and what is wrong with it: `annotations[7]: missing field ...`.
    pub(crate) reason: String,
}

impl Broken {
    pub(crate) fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault, reason: shortened(reason.into()) }
    }

    /// The error of the sample, with the file that it is of.
    pub(crate) fn error(&self, file: &str) -> Error {
        Error::bad(self.fault, format!("{file}: {}", self.reason))
    }
}

/// A reason that a log has room for: parsers quote what they found, which may be a caption or a whole file.
pub(crate) fn shortened(mut reason: String) -> String {
    const LONGEST: usize = 300;
    if reason.len() > LONGEST {
        reason.truncate(reason.floor_char_boundary(LONGEST));
        reason.push('…');
    }
    reason
}

/// Errors: no entry, or none that is whole.
pub(crate) fn check_some<T>(name: &str, entries: &[std::result::Result<T, Broken>]) -> Result<()> {
    if entries.iter().any(|entry| entry.is_ok()) {
        return Ok(());
    }
    // A wrong field tells most: images without captions follow from captions without text.
    let broken = || entries.iter().filter_map(|entry| entry.as_ref().err());
    let hint = match broken().find(|broken| broken.fault == Fault::Json).or(broken().next()) {
        None => "the file lists none".to_owned(),
        Some(first) => format!("none of its {} entries is whole; the first: {}", entries.len(), first.reason),
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
