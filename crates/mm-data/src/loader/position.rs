//! Where a loader stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Fault, Rank};

/// What a run saves to go on with the very next sample. [`Position::default`] is the beginning.
///
/// `epoch` and `index` say it all for samples by number, whatever the number of processes; `streams` is this
/// process's own.
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

impl Position {
    /// Where process `split` goes on, from where each process of a run stood when it was saved. With another
    /// number of processes than then, samples by number go on exactly; what each has taken of a stream is
    /// then its share of what all had, about where they were.
    pub fn resumed(saved: Vec<Self>, rank: Rank) -> Self {
        let mut resumed = saved.get(rank.index).or(saved.first()).cloned().unwrap_or_default();
        if saved.len() != rank.world && !resumed.streams.is_empty() {
            tracing::warn!(
                "the run goes on with {} processes instead of {}: streams go on about where they were",
                rank.world,
                saved.len()
            );
            let parts: BTreeSet<usize> =
                saved.iter().flat_map(|position| position.streams.keys().copied()).collect();
            let taken =
                |part: &usize| saved.iter().filter_map(|position| position.streams.get(part)).sum::<u64>();
            resumed.streams = parts.iter().map(|part| (*part, taken(part) / rank.world as u64)).collect();
        }
        resumed.tally = Tally::default();
        for position in &saved {
            resumed.bad.extend(&position.bad);
            // Tallies are summed over the processes: one takes what all have counted.
            if rank.index == 0 {
                resumed.tally.add(&position.tally);
            }
        }
        resumed
    }
}

/// What became of samples: read + skipped = those there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Good ones.
    pub read: u64,
    /// Those of the good ones that have a [`Sample::warning`](crate::Sample::warning).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warned: u64,
    /// Bad ones; one that is bad in each epoch counts in each.
    pub skipped: BTreeMap<Fault, u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.warned += other.warned;
        other.skipped.iter().for_each(|(fault, count)| *self.skipped.entry(*fault).or_default() += count);
    }

    /// All bad ones.
    pub fn all_skipped(&self) -> u64 {
        self.skipped.values().sum()
    }
}

impl std::fmt::Display for Tally {
    /// `3,950 read, 12 of them with a warning, 7 skipped (5 corrupt image, 2 no caption)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} read", self.read)?;
        if self.warned > 0 {
            write!(f, ", {} of them with a warning", self.warned)?;
        }
        write!(f, ", {} skipped", self.all_skipped())?;
        let kinds: Vec<String> =
            self.skipped.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
        if kinds.is_empty() { Ok(()) } else { write!(f, " ({})", kinds.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Vec<Position> {
        let position = |taken, read, bad: u64| Position {
            epoch: 2,
            index: 8,
            streams: [(1, taken)].into(),
            tally: Tally { read, warned: bad, skipped: [(Fault::Image, bad)].into() },
            bad: [7, bad].into(),
            samples: 100,
        };
        vec![position(10, 50, 1), position(14, 60, 2)]
    }

    #[test]
    fn as_many_processes_go_on_where_each_stood_and_their_tallies_add_up() {
        let [one, two] = [0, 1].map(|rank| Position::resumed(saved(), Rank { index: rank, world: 2 }));
        assert_eq!((one.epoch, one.index, one.streams[&1], two.streams[&1]), (2, 8, 10, 14));
        assert_eq!((one.tally.read, one.tally.skipped[&Fault::Image], two.tally.read), (110, 3, 0));
        assert!(one.bad == two.bad && one.bad == [1, 2, 7].into());
        assert_eq!(one.tally.to_string(), "110 read, 3 of them with a warning, 3 skipped (3 corrupt image)");
    }

    #[test]
    fn another_number_of_processes_shares_what_streams_had() {
        let alone = Position::resumed(saved(), Rank::default());
        assert_eq!((alone.index, alone.streams[&1], alone.tally.read), (8, 24, 110));
        let third = Position::resumed(saved(), Rank { index: 2, world: 3 });
        assert_eq!((third.index, third.streams[&1], third.tally.read), (8, 8, 0));
        assert_eq!(Position::resumed(vec![], Rank::default()), Position::default());
    }
}
