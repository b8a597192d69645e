//! Evaluation sets, read in order and shared by the ranks.

use crate::{Error, Progress, Result};
use mm_data::{BadSample, Dataset, DatasetConfig, Item, Loader, LoaderConfig, Map, Position, Rank, Sample};
use mm_dist::ProcessGroup;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// A set that models are evaluated on.
#[derive(Clone)]
pub struct EvalSet {
    /// Its name in the config.
    pub name: String,
    /// The color behind transparent images.
    pub background: [u8; 3],
    /// Whether JPEGs that are several times as large as the model's input are decoded at a part of their
    /// size: see [`mm_image::decode_reduced`]. Off by default, so that pixels are those of the Python peers.
    pub fast_decode: bool,
    dataset: Arc<dyn Dataset>,
    max_bad_samples: usize,
}

/// Context of an evaluation.
#[derive(Clone, Copy)]
pub struct EvalContext<'a> {
    /// The processes that share the samples.
    pub group: &'a ProcessGroup,
    /// Samples that go through the model at once.
    pub batch_size: usize,
    /// Whether [`crate::Evaluation::sections`] are wanted: images take time.
    pub wants_sections: bool,
    /// Shows how many samples are done.
    pub progress: &'a dyn Progress,
}

/// How the reading of a set went, over all ranks.
#[derive(Clone, Debug, Default)]
pub struct ReadReport {
    /// The samples that could not be read.
    pub bad: Vec<BadSample>,
    /// Time that this rank spent waiting for data.
    pub data_wait: Duration,
}

impl EvalSet {
    /// Opens a set. Transparent images are set on `background`; up to `max_bad_samples` may be unreadable.
    ///
    /// # Errors
    /// The set cannot be opened, is empty, or is a stream, which has no samples by number.
    pub fn open(
        name: &str,
        config: &DatasetConfig,
        background: [u8; 3],
        max_bad_samples: usize,
    ) -> Result<Self> {
        Self::of_dataset(name, Arc::from(config.open()?), background, max_bad_samples)
    }

    /// As [`EvalSet::open`], of an open `dataset`.
    ///
    /// # Errors
    /// The set is empty, or is a stream.
    pub fn of_dataset(
        name: &str,
        dataset: Arc<dyn Dataset>,
        background: [u8; 3],
        max_bad_samples: usize,
    ) -> Result<Self> {
        if dataset.is_empty() {
            return Err(Error::Evaluation(format!("the set {name} is empty: {}", dataset.name())));
        }
        if dataset.stream().is_some() {
            let reason = "is a stream; an evaluation reads samples by number: use plain local tars";
            return Err(Error::Evaluation(format!("the set {name} {reason}")));
        }
        Ok(Self { name: name.to_owned(), dataset, background, max_bad_samples, fast_decode: false })
    }

    /// Samples in the set, unreadable ones included.
    pub fn len(&self) -> usize {
        self.dataset.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.dataset.is_empty()
    }

    /// The author and license of the set's images, to be shown beside them; empty if none is known.
    pub fn credit(&self) -> &str {
        self.dataset.credit()
    }

    /// A sample by its number.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn sample(&self, index: usize) -> Result<Sample> {
        Ok(self.dataset.sample(index)?)
    }

    /// Reads the set in order, decoding ahead, and calls `body` with each batch of this rank: items and their
    /// numbers in the set. Ranks share the samples in whole batches, so that each sample is in the batch that
    /// one process would put it in.
    ///
    /// # Errors
    /// More samples are bad than the set allows, `body` fails, or another process is lost.
    pub fn for_each_batch<I: Item>(
        &self,
        context: &EvalContext,
        map: Map<I>,
        mut body: impl FnMut(Vec<I>, Vec<usize>) -> Result<()>,
    ) -> Result<ReadReport> {
        let group = context.group;
        let rank = Rank { index: group.rank(), world: group.world() };
        let config = LoaderConfig {
            batch_size: context.batch_size * rank.world,
            shuffle: false,
            drop_last: false,
            max_bad_samples: self.max_bad_samples,
            ..LoaderConfig::default()
        };
        let mut loader = Loader::new(self.dataset.clone(), config, rank, map, Position::default())?;
        let total = self.len().div_ceil(rank.world) as u64;
        let mut done = 0;
        for batch in loader.epoch() {
            let batch = batch?;
            done += batch.items.len() as u64;
            body(batch.items, batch.indices)?;
            context.progress.report("images", done.min(total), total);
        }
        context.progress.report("images", total, total);
        Ok(ReadReport { bad: gather(group, loader.bad_samples())?, data_wait: loader.data_wait() })
    }
}

/// The values of all ranks, in the order of their ranks, on every rank.
///
/// # Errors
/// Another process is lost.
pub fn gather<T: Serialize + DeserializeOwned>(group: &ProcessGroup, own: &[T]) -> Result<Vec<T>> {
    let pieces = group.gather_bytes(&serde_json::to_vec(own).expect("plain values are JSON"))?;
    let parsed = pieces
        .iter()
        .map(|piece| serde_json::from_slice::<Vec<T>>(piece).expect("it was JSON before it was sent"));
    Ok(parsed.flatten().collect())
}
