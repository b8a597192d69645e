//! The splits of a file with several.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use crate::{Error, Result};

/// Which splits of a file to read.
pub(crate) enum Splits<'a> {
    /// `train`, and `restval` where there is one: the rest of COCO's validation set, which is used for
    /// training.
    Training,
    /// The listed splits.
    Named(&'a [String]),
}

impl<'a> Splits<'a> {
    pub(crate) fn of(named: &'a [String]) -> Self {
        if named.is_empty() { Self::Training } else { Self::Named(named) }
    }

    pub(crate) fn has(&self, split: &str) -> bool {
        match self {
            Self::Training => split == "train" || split == "restval",
            Self::Named(names) => names.iter().any(|name| name == split),
        }
    }

    /// Checks that each split has an entry. `present` counts the entries of each split.
    ///
    /// # Errors
    /// A split without an entry. The message lists the splits of the file.
    pub(crate) fn check(&self, file: &Path, present: &BTreeMap<String, usize>) -> Result<()> {
        let train = ["train".to_owned()];
        let wanted = match self {
            Self::Training => &train[..],
            Self::Named(names) => names,
        };
        match wanted.iter().find(|name| !present.contains_key(*name)) {
            None => Ok(()),
            Some(missing) => Err(Error::Setting(format!(
                "{}: no split `{missing}`; the file has {}: set `split` to one or a list of these",
                file.display(),
                counted(present)
            ))),
        }
    }
}

/// The splits with their counts, for messages.
pub(crate) fn counted<T: Display>(present: &BTreeMap<T, usize>) -> String {
    present.iter().map(|(split, count)| format!("`{split}` ({count})")).collect::<Vec<_>>().join(", ")
}
