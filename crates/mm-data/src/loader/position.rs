//! Where a loader stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Fault;

/// What a run saves to go on with the very next sample. [`Position::default`] is the beginning.
///
/// `epoch` and `index` say it all for samples by number, whatever the number of processes; `streams` is this process's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The epoch of the next sample, from 0.
    pub epoch: u64,
    /// How many samples of that epoch are behind, of all processes, good and bad.
    pub index: usize,
    /// Of each stream of a mix, or of the only source if it is one: how many samples this process has taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<usize, u64>,
    /// The samples of this process since the beginning.
    pub tally: Tally,
    /// The different samples that were bad, by a hash of their source and key.
    pub bad: BTreeSet<u64>,
    /// The number of samples of the data set; 0 before the first batch.
    pub samples: usize,
}

/// What became of samples: read + skipped = those there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Good ones.
    pub read: u64,
    /// Bad ones; one that is bad in each epoch counts in each.
    pub skipped: BTreeMap<Fault, u64>,
}

impl Tally {
    /// All bad ones.
    pub fn all_skipped(&self) -> u64 {
        self.skipped.values().sum()
    }
}

impl std::fmt::Display for Tally {
    /// `3,950 read, 7 skipped (5 corrupt image, 2 no caption)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} read, {} skipped", self.read, self.all_skipped())?;
        let kinds: Vec<String> = self.skipped.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
        if kinds.is_empty() { Ok(()) } else { write!(f, " ({})", kinds.join(", ")) }
    }
}
