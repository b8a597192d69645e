//! The splits of a file with several, and held-out parts by a hash.

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

/// Whether an image, a patient or another group is in the held-out part, which has about `share` of all
/// groups. It depends on the name alone: groups that are added later move no other group.
pub fn is_held_out(group: &str, share: f64) -> bool {
    const SEED: u64 = 0x6d6d_2d73_706c_6974; // "mm-split"
    (hash(SEED, group.as_bytes()) >> 11) as f64 / (1_u64 << 53) as f64 >= 1.0 - share
}

/// Checks the share of a held-out part; `key` is its name in the config.
///
/// # Errors
/// It is not above 0 and below 1.
pub(crate) fn check_share(key: &str, share: f64) -> Result<()> {
    if share > 0.0 && share < 1.0 {
        return Ok(());
    }
    Err(Error::Setting(format!("{key} = {share}: it must be above 0 and below 1")))
}

/// FNV-1a with the finalizer of SplitMix64: the same on every machine and in every release of Rust.
pub(crate) fn hash(seed: u64, key: &[u8]) -> u64 {
    let mut hash = key.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The splits with their counts, for messages.
pub(crate) fn counted<T: Display>(present: &BTreeMap<T, usize>) -> String {
    present.iter().map(|(split, count)| format!("`{split}` ({count})")).collect::<Vec<_>>().join(", ")
}
