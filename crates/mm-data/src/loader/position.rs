//! Where a loader stands, and in which order it goes on.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::SampleRng;

/// What a run saves to go on with the very next sample. [`Position::default`] is the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The epoch of the next sample, from 0.
    pub epoch: u64,
    /// How many samples of that epoch are behind, good and bad.
    pub index: usize,
    /// Good samples since the beginning.
    pub read: u64,
    /// Bad samples passed over since the beginning; one that is bad in each epoch counts in each.
    pub skipped: u64,
    /// The different samples that were bad, by their index in the data set.
    pub bad: BTreeSet<usize>,
    /// The number of samples of the data set; 0 before the first batch.
    pub samples: usize,
}

/// The order of an epoch: the indices of the data set as they lie, or shuffled by seed and epoch.
pub(super) fn order(len: usize, shuffle: bool, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    if shuffle {
        let mut rng = rng(seed, epoch, u64::MAX);
        for last in (1..len).rev() {
            order.swap(last, rng.random_range(0..=last));
        }
    }
    order
}

/// The random numbers of one sample in one epoch; they depend on nothing else.
pub(super) fn rng(seed: u64, epoch: u64, index: u64) -> SampleRng {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, epoch, index, 0]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    SampleRng::from_seed(key)
}
