//! The position of a loader, and the tally of its samples.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Fault, Rank};

/// The state of a loader that a checkpoint saves, to resume with the very next sample. [`Position::default`]
/// is the start.
///
/// For data sets that are read by index, `epoch` and `index` suffice, for any number of processes; `streams`
/// belongs to this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The epoch of the next sample, from 0.
    pub epoch: u64,
    /// The number of samples of that epoch that are done, over all processes, good and bad.
    pub index: usize,
    /// The number of samples that this process has taken from each stream, by the index of the data set in
    /// the mix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<usize, u64>,
    /// The tally of this process since the start.
    pub tally: Tally,
    /// The different bad samples, by a hash of data set and key.
    pub bad: BTreeSet<u64>,
    /// The number of samples of the data set; 0 if not yet known.
    pub samples: usize,
}

impl Position {
    /// The position at which process `rank` resumes, from the saved positions of all processes. With another
    /// number of processes, data sets that are read by index resume exactly; streams resume approximately,
    /// with the taken samples divided evenly.
    pub fn resumed(saved: Vec<Self>, rank: Rank) -> Self {
        let mut resumed = saved.get(rank.index).or(saved.first()).cloned().unwrap_or_default();
        if saved.len() != rank.world && !resumed.streams.is_empty() {
            tracing::warn!(
                "the run resumes with {} processes instead of {}: streams resume approximately",
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
            // Tallies are summed over the processes: rank 0 takes the sum.
            if rank.index == 0 {
                resumed.tally.add(&position.tally);
            }
        }
        resumed
    }
}

/// Counts of samples: read + skipped = total.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Samples that were read.
    pub read: u64,
    /// Samples among these with a [`Sample::warning`](crate::Sample::warning).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warned: u64,
    /// Bad samples by fault. A sample counts once per epoch.
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

    /// The number of bad samples.
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
    fn the_same_number_of_processes_resumes_exactly_and_tallies_add_up() {
        let [one, two] = [0, 1].map(|rank| Position::resumed(saved(), Rank { index: rank, world: 2 }));
        assert_eq!((one.epoch, one.index, one.streams[&1], two.streams[&1]), (2, 8, 10, 14));
        assert_eq!((one.tally.read, one.tally.skipped[&Fault::Image], two.tally.read), (110, 3, 0));
        assert!(one.bad == two.bad && one.bad == [1, 2, 7].into());
        assert_eq!(one.tally.to_string(), "110 read, 3 of them with a warning, 3 skipped (3 corrupt image)");
    }

    #[test]
    fn another_number_of_processes_divides_the_samples_of_streams() {
        let alone = Position::resumed(saved(), Rank::default());
        assert_eq!((alone.index, alone.streams[&1], alone.tally.read), (8, 24, 110));
        let third = Position::resumed(saved(), Rank { index: 2, world: 3 });
        assert_eq!((third.index, third.streams[&1], third.tally.read), (8, 8, 0));
        assert_eq!(Position::resumed(vec![], Rank::default()), Position::default());
    }
}
