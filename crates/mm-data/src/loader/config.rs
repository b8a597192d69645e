//! How to load, and what of an epoch is a batch.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Rank, Result};

/// How to load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Samples in a batch, of all processes together.
    pub batch_size: usize,
    /// Threads that read samples; 0 takes as many as the machine has cores.
    pub workers: usize,
    /// Batches that are read ahead.
    pub prefetch: usize,
    /// Bytes that the items read ahead may take; one batch is read whatever it takes.
    pub prefetch_bytes: usize,
    /// Whether each epoch has an order of its own; otherwise all have the order of the source.
    pub shuffle: bool,
    /// Samples that are shuffled among each other, at least, where a source is read in blocks.
    pub shuffle_window: usize,
    /// Whether samples are drawn with replacement.
    pub resample: bool,
    /// What the order and the randomness of each sample follow from.
    pub seed: u64,
    /// How many different samples may be bad before the run stops.
    pub max_bad_samples: usize,
    /// Whether it is for training: batches are always full, the rest of an epoch is left out and bad samples
    /// are replaced.
    pub drop_last: bool,
    /// Seconds without a sample after which the loader says what it waits for.
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

/// The places of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub epoch: u64,
    /// Of all processes together.
    pub all: Range<usize>,
    /// The epoch and place that the next batch begins at.
    pub next: (u64, usize),
}

impl Places {
    /// A process's share of the places of a batch of up to `batch_size`: as many as the others, but for the
    /// last of an epoch.
    pub fn slice(&self, batch_size: usize, rank: Rank) -> Range<usize> {
        let Range { start, end } = self.all;
        let share = batch_size.div_ceil(rank.world);
        (start + share * rank.index).min(end)..(start + share * (rank.index + 1)).min(end)
    }
}

impl LoaderConfig {
    /// Errors: settings that cannot work.
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
                "process {} of {}: there is no such process",
                rank.index, rank.world
            )));
        }
        if drop_last && batch_size % rank.world != 0 {
            return Err(Error::Setting(format!(
                "batch_size = {batch_size} cannot be shared by {} processes: make it a multiple of their number",
                rank.world
            )));
        }
        if drop_last && batch_size > len {
            return Err(Error::Setting(format!(
                "batch_size = {batch_size} is larger than `{name}` with its {len} samples, so that no batch is ever full: \
             make the batch smaller or the data set larger"
            )));
        }
        Ok(())
    }

    /// The batch that begins at a place of an epoch of `len` samples.
    pub(super) fn batch_at(&self, (epoch, place): (u64, usize), len: usize) -> Places {
        // A run with smaller batches may have ended where none of this size fits any more.
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
    fn processes_share_every_place_once() {
        let slices = |all| {
            let places = Places { epoch: 0, all, next: (0, 32) };
            [0, 1, 2].map(|rank| places.slice(12, Rank { index: rank, world: 3 }))
        };
        assert_eq!(slices(20..32), [20..24, 24..28, 28..32]);
        assert_eq!(slices(20..26), [20..24, 24..26, 26..26]);
    }
}
