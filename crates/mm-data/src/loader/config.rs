//! The config of the loader, and the division of an epoch into batches.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Rank, Result};

/// The config of a [`Loader`](crate::Loader).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// The global batch size: samples per batch over all processes.
    pub batch_size: usize,
    /// The number of threads that read samples; 0 for one per core.
    pub workers: usize,
    /// The number of prefetched batches.
    pub prefetch: usize,
    /// The limit on the size of the prefetched items in bytes. One batch is always prefetched.
    pub prefetch_bytes: usize,
    /// Whether each epoch is shuffled anew; otherwise samples are read in stored order.
    pub shuffle: bool,
    /// The minimum number of samples that are shuffled together, where a data set is read in blocks.
    pub shuffle_window: usize,
    /// Whether samples are drawn with replacement.
    pub resample: bool,
    /// The seed of the order and of the random numbers of each sample.
    pub seed: u64,
    /// The number of different bad samples that is allowed before the run stops.
    pub max_bad_samples: usize,
    /// True for training: all batches are full, the rest of an epoch is dropped and bad samples are replaced.
    pub drop_last: bool,
    /// Seconds without a sample after which the loader logs the cause of the wait.
    pub stall_seconds: f64,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 32,
            workers: 0,
            prefetch: 2,
            prefetch_bytes: 1 << 30,
            shuffle: true,
            shuffle_window: 4096,
            resample: false,
            seed: 0,
            max_bad_samples: 0,
            drop_last: true,
            stall_seconds: 10.0,
        }
    }
}

/// The places of a batch in its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub epoch: u64,
    /// The places of all processes.
    pub all: Range<usize>,
    /// The epoch and the first place of the next batch.
    pub next: (u64, usize),
}

impl Places {
    /// The places of one process in a batch of up to `batch_size`. All processes have equally many, except in
    /// the last batch of an epoch.
    pub fn slice(&self, batch_size: usize, rank: Rank) -> Range<usize> {
        let Range { start, end } = self.all;
        let share = batch_size.div_ceil(rank.world);
        (start + share * rank.index).min(end)..(start + share * (rank.index + 1)).min(end)
    }
}

impl LoaderConfig {
    /// # Errors
    /// Settings that are invalid for `len` samples and this number of processes.
    pub(super) fn check(&self, rank: Rank, name: &str, len: usize) -> Result<()> {
        let Self { batch_size, drop_last, .. } = *self;
        if len == 0 {
            return Err(Error::Empty {
                name: name.to_owned(),
                hint: "check the path and the file in the data config".into(),
            });
        }
        if batch_size == 0 {
            return Err(Error::Setting("batch_size = 0: it must be at least 1".into()));
        }
        if rank.world == 0 || rank.index >= rank.world {
            return Err(Error::Setting(format!(
                "rank {} with {} processes: the rank must be below their number",
                rank.index, rank.world
            )));
        }
        if drop_last && batch_size % rank.world != 0 {
            return Err(Error::Setting(format!(
                "batch_size = {batch_size} is not divisible by {} processes: make it a multiple of their \
                 number",
                rank.world
            )));
        }
        if drop_last && batch_size > len {
            return Err(Error::Setting(format!(
                "batch_size = {batch_size} is larger than `{name}` with its {len} samples, so that no batch \
                 is ever full: make the batch smaller or the data set larger"
            )));
        }
        Ok(())
    }

    /// The batch that starts at a place of an epoch of `len` samples.
    pub(super) fn batch_at(&self, (epoch, place): (u64, usize), len: usize) -> Places {
        // A run with smaller batches may have stopped where no batch of this size fits.
        let (epoch, start) =
            if self.drop_last && place + self.batch_size > len { (epoch + 1, 0) } else { (epoch, place) };
        let end = (start + self.batch_size).min(len);
        let is_last = if self.drop_last { end + self.batch_size > len } else { end == len };
        Places { epoch, all: start..end, next: if is_last { (epoch + 1, 0) } else { (epoch, end) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_full_batches_in_training_and_all_samples_in_evaluation() {
        let training = LoaderConfig { batch_size: 4, ..LoaderConfig::default() };
        let places = |config: &LoaderConfig, at| config.batch_at(at, 10);
        assert_eq!(places(&training, (2, 0)), Places { epoch: 2, all: 0..4, next: (2, 4) });
        assert_eq!(places(&training, (2, 4)), Places { epoch: 2, all: 4..8, next: (3, 0) });
        assert_eq!(places(&training, (2, 7)), Places { epoch: 3, all: 0..4, next: (3, 4) });
        let evaluation = LoaderConfig { drop_last: false, ..training };
        assert_eq!(places(&evaluation, (2, 8)), Places { epoch: 2, all: 8..10, next: (3, 0) });
    }

    #[test]
    fn the_slices_of_processes_cover_each_place_once() {
        let slices = |all| {
            let places = Places { epoch: 0, all, next: (0, 32) };
            [0, 1, 2].map(|rank| places.slice(12, Rank { index: rank, world: 3 }))
        };
        assert_eq!(slices(20..32), [20..24, 24..28, 28..32]);
        assert_eq!(slices(20..26), [20..24, 24..26, 26..26]);
    }
}
