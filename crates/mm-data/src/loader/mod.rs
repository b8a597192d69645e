//! The loader: threads decode ahead, the order depends on the seed alone, and a saved position goes on exactly.
//!
//! Each epoch is a list of sample indices, shuffled by `(seed, epoch)`. The loader hands them to its workers in that
//! order and takes the results in that order, so the number of threads and their speed change nothing. A sample that
//! cannot be read is passed over, counted and logged, and the next one fills its place in the batch. What a batch was
//! is therefore a function of the data, the seed and the [`Position`] before it.

mod position;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use position::Position;
use workers::Workers;

use crate::{Error, Result, Sample, SampleRng, Source};

/// After this long without the next sample the loader says what it waits for.
const STALL: Duration = Duration::from_secs(10);

/// What makes a training item of a sample: decode, augment, tokenise. It runs on many threads at once, and takes its
/// randomness from the given generator alone.
pub type Map<T> = Arc<dyn Fn(&Sample, &mut SampleRng) -> Result<T> + Send + Sync>;

/// How to load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Threads that read samples; 0 takes as many as the machine has cores.
    pub workers: usize,
    /// Batches that are read ahead.
    pub prefetch: usize,
    /// Whether each epoch has an order of its own; otherwise all have the order of the source.
    pub shuffle: bool,
    /// What the order and the randomness of each sample follow from.
    pub seed: u64,
    /// How many different samples may be bad before the run stops.
    pub max_bad_samples: usize,
    /// Whether the last, smaller batch of an epoch is left out.
    pub drop_last: bool,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { batch_size: 32, workers: 0, prefetch: 2, shuffle: true, seed: 0, max_bad_samples: 0, drop_last: true }
    }
}

/// Some mapped samples of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch<T> {
    /// What `map` made of each sample.
    pub items: Vec<T>,
    /// The key of each sample.
    pub keys: Vec<String>,
    /// The epoch they are of, from 0.
    pub epoch: u64,
    /// What to save once this batch is used: a loader from here gives the batch after it.
    pub position: Position,
}

/// A sample that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSample {
    /// Its key, or `#index` where the source could not say one.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Batches of a [`Source`], read by threads.
///
/// ```
/// use std::sync::Arc;
/// use mm_data::{Loader, LoaderConfig, Position, SourceConfig, emoji::EmojiConfig};
///
/// let source = Arc::from(SourceConfig::Emoji(EmojiConfig::default()).open()?);
/// let config = LoaderConfig { batch_size: 8, ..LoaderConfig::default() };
/// let map = Arc::new(|sample: &mm_data::Sample, _: &mut mm_data::SampleRng| {
///     sample.image.decode([255; 3]).map(|image| (image, sample.captions[0].clone()))
/// });
/// let mut loader = Loader::new(source, config, map, Position::default())?;
/// let batch = loader.next_batch()?;
/// assert_eq!((batch.items.len(), batch.position.index), (8, 8));
/// # Ok::<(), mm_data::Error>(())
/// ```
pub struct Loader<T> {
    source: Arc<dyn Source>,
    config: LoaderConfig,
    position: Position,
    /// The epoch and the place in it of the next ticket, and the order of that epoch.
    ahead: (u64, usize),
    order: Vec<usize>,
    workers: Workers<T>,
    bad: Vec<BadSample>,
}

impl<T: Send + 'static> Loader<T> {
    /// A loader that goes on from `position`. It reads nothing before the first batch is asked for.
    ///
    /// Errors: an empty source, a batch size of 0, a batch larger than the data set with `drop_last`, a position
    /// of another data set.
    pub fn new(source: Arc<dyn Source>, config: LoaderConfig, map: Map<T>, mut position: Position) -> Result<Self> {
        let (name, len) = (source.name().to_owned(), source.len());
        if len == 0 {
            return Err(Error::Empty { name, hint: "check the path and the file in the data config".into() });
        }
        if config.batch_size == 0 {
            return Err(Error::Setting("batch_size = 0: it must be at least 1".into()));
        }
        if config.drop_last && config.batch_size > len {
            return Err(Error::Setting(format!(
                "batch_size = {} is larger than `{name}` with its {len} samples, so that no batch is ever full: \
                 make the batch smaller or the data set larger",
                config.batch_size
            )));
        }
        if (position.samples != 0 && position.samples != len) || position.index >= len {
            return Err(Error::OtherData { name, saved: position.samples, present: len });
        }
        position.samples = len;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { cores } else { config.workers };
        let workers = Workers::start(&source, &map, config.seed, count)?;
        let order = position::order(len, config.shuffle, config.seed, position.epoch);
        let ahead = (position.epoch, position.index);
        Ok(Self { source, config, position, ahead, order, workers, bad: Vec::new() })
    }

    /// The next batch; epoch follows epoch without end. All batches are full, but for the last one of an epoch where
    /// `drop_last` is off.
    ///
    /// Errors: more bad samples than allowed, an epoch that gave no batch.
    pub fn next_batch(&mut self) -> Result<Batch<T>> {
        loop {
            let Position { epoch, index, read, .. } = self.position;
            if let Some(batch) = self.batch_of_epoch(u64::MAX)? {
                return Ok(batch);
            }
            if index == 0 {
                let good = (self.position.read - read) as usize;
                let (name, len) = (self.source.name().to_owned(), self.source.len());
                return Err(Error::NoBatch { name, epoch, batch_size: self.config.batch_size, good, len });
            }
        }
    }

    /// The batches from where the loader stands to the end of the epoch, for evaluation; nothing is read beyond it.
    /// The next call gives the next epoch.
    pub fn epoch(&mut self) -> impl Iterator<Item = Result<Batch<T>>> + '_ {
        let epoch = self.position.epoch;
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || self.position.epoch != epoch {
                return None;
            }
            let batch = self.batch_of_epoch(epoch + 1).transpose();
            failed = matches!(batch, Some(Err(_)));
            batch
        })
    }

    /// Where the loader stands: behind the batch that it gave last.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The bad samples that this loader met, each once.
    pub fn bad_samples(&self) -> &[BadSample] {
        &self.bad
    }

    /// How long the caller has waited for samples so far. Near the run's time: more workers or smaller files would help.
    pub fn time_waiting(&self) -> Duration {
        self.workers.waiting
    }

    /// The next batch of this epoch, `None` when too few samples remain. Reads ahead into epochs before `end`.
    fn batch_of_epoch(&mut self, end: u64) -> Result<Option<Batch<T>>> {
        let epoch = self.position.epoch;
        let (mut items, mut keys) = (Vec::new(), Vec::new());
        while self.position.epoch == epoch && items.len() < self.config.batch_size {
            self.read_ahead(end);
            let outcome = self.workers.take()?;
            self.step();
            match outcome.item {
                Ok(item) => {
                    self.position.read += 1;
                    items.push(item);
                    keys.push(outcome.key);
                }
                Err(reason) => self.pass_over(outcome.ticket.sample, BadSample { key: outcome.key, reason })?,
            }
        }
        let enough = items.len() == self.config.batch_size || !(self.config.drop_last || items.is_empty());
        Ok(enough.then(|| Batch { items, keys, epoch, position: self.position.clone() }))
    }

    /// Keeps the workers supplied with the next samples in order.
    fn read_ahead(&mut self, end: u64) {
        while self.workers.in_flight() < self.config.batch_size * self.config.prefetch.max(1) && self.ahead.0 < end {
            let (epoch, index) = &mut self.ahead;
            self.workers.send(*epoch, self.order[*index]);
            *index += 1;
            if *index == self.order.len() {
                (*epoch, *index) = (*epoch + 1, 0);
                self.order = position::order(self.order.len(), self.config.shuffle, self.config.seed, *epoch);
            }
        }
    }

    /// One sample further.
    fn step(&mut self) {
        self.position.index += 1;
        if self.position.index == self.position.samples {
            (self.position.epoch, self.position.index) = (self.position.epoch + 1, 0);
        }
    }

    fn pass_over(&mut self, sample: usize, bad: BadSample) -> Result<()> {
        tracing::warn!(source = self.source.name(), key = bad.key, reason = bad.reason, "a bad sample is skipped");
        self.position.skipped += 1;
        if self.position.bad.insert(sample) {
            self.bad.push(bad);
        }
        let (count, allowed) = (self.position.bad.len(), self.config.max_bad_samples);
        if count <= allowed {
            return Ok(());
        }
        let first = self.bad.iter().take(10).map(|bad| format!("{}: {}", bad.key, bad.reason)).collect();
        Err(Error::TooManyBad { name: self.source.name().to_owned(), count, allowed, first })
    }
}
