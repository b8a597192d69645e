//! The loader: threads decode ahead, the order depends on the seed alone, and a saved position resumes it
//! exactly.
//!
//! # Order
//! Draws are numbered from the start of the run. The sample of a draw and the random numbers of its map
//! depend on the seed and the number of the draw: not on threads, their speed, or the number of processes.
//! Each process takes its slice of each batch, so N processes together see the batches of one process, and a
//! run can be resumed with another number of processes.
//!
//! # Groups
//! With [`Loader::with_groups`] each batch has samples of one group, such as images of one size. The batches
//! of an epoch follow from its draws alone.
//!
//! # Bad samples
//! A sample that cannot be read is counted and logged. In training it is replaced by a sample from the other
//! half of the epoch, so that batches stay full and all processes take the same number of steps. In
//! evaluation its batch is smaller.
//!
//! # Streams
//! A data set that can only be read in sequence gives each process the samples of its own shards, in an order
//! that depends on the seed and the number of processes. A resumed run reads again up to its position.

mod config;
mod feed;
mod groups;
mod order;
mod position;
mod report;
mod workers;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use config::LoaderConfig;
use config::Places;
use feed::{Feed, Numbered, Streamed};
pub use groups::BatchGroups;
use groups::GroupedEpoch;
use order::{Order, OrderConfig, ShuffledDraws};
pub use position::{Position, Tally};
use report::Report;
use workers::{Shared, Workers};

use crate::{BadSample, Dataset, Error, Rank, Result, Sample, SampleRng, StreamOrder, WeightedDataset};

/// The result of a [`Map`]. Its size lets the loader bound the memory of prefetched items.
pub trait Item: Send + 'static {
    /// The approximate size in bytes.
    fn bytes(&self) -> usize;
}

impl Item for image::RgbImage {
    fn bytes(&self) -> usize {
        self.as_raw().len()
    }
}

/// A function from a sample to a training item: decode, augment, tokenize. It runs on several threads and
/// draws random numbers from the given generator only.
pub type Map<T> = Arc<dyn Fn(&Sample, &mut SampleRng) -> Result<T> + Send + Sync>;

/// The slice of a batch of one process: mapped samples of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch<T> {
    /// The mapped samples.
    pub items: Vec<T>,
    /// The key of each sample.
    pub keys: Vec<String>,
    /// The index of each sample in the data set; in a stream, the number of samples before it.
    pub indices: Vec<usize>,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The position after this batch, for a checkpoint: a loader from there continues with the next batch.
    pub position: Position,
}

/// Reads batches of a [`Dataset`] on threads.
///
/// ```
/// use std::sync::Arc;
/// use mm_data::{Loader, LoaderConfig, Position, DatasetConfig, Rank, emoji::EmojiConfig};
///
/// let source = Arc::from(DatasetConfig::Emoji(EmojiConfig::default()).open()?);
/// let config = LoaderConfig { batch_size: 8, ..LoaderConfig::default() };
/// use mm_data::{Sample, SampleRng};
/// let map = Arc::new(|sample: &Sample, _: &mut SampleRng| sample.image()?.decode([255; 3]));
/// let mut loader = Loader::new(source, config, Rank::default(), map, Position::default())?;
/// let batch = loader.next_batch()?;
/// assert_eq!((batch.items.len(), batch.position.index), (8, 8));
/// # Ok::<(), mm_data::Error>(())
/// ```
pub struct Loader<T> {
    source: Arc<dyn Dataset>,
    config: LoaderConfig,
    rank: Rank,
    weights: Vec<f64>,
    /// The order of the draws of a mix that is shuffled.
    shuffled: Option<ShuffledDraws>,
    /// The groups of samples that batches are made of, where they are.
    groups: Option<(BatchGroups, GroupedEpoch)>,
    position: Position,
    /// The epoch and place of the next batch to prefetch.
    ahead: (u64, usize),
    /// The prefetched batches, with the data set of each sample.
    pending: VecDeque<(Places, Vec<usize>)>,
    /// The number of samples that are being read or are ready.
    in_flight: usize,
    /// The size of the largest item so far in bytes.
    largest: usize,
    /// For each data set, the last announced window.
    announced: Vec<Option<(u64, usize)>>,
    workers: Workers<T>,
    report: Report,
}

impl<T: Item> Loader<T> {
    /// A loader of process `rank` that starts at `position`. Reading begins with the first call for a batch.
    ///
    /// # Errors
    /// An empty data set, a batch size that is 0 or not divisible by the number of processes, with
    /// `drop_last` a batch larger than the data set, or a position of another data set.
    pub fn new(
        source: Arc<dyn Dataset>,
        config: LoaderConfig,
        rank: Rank,
        map: Map<T>,
        position: Position,
    ) -> Result<Self> {
        Self::with_groups(source, config, rank, map, position, None)
    }

    /// As [`Loader::new`], for training in batches of one group each: `groups` has that of each sample. A bad
    /// sample is replaced by one of its group.
    ///
    /// # Errors
    /// As [`Loader::new`]; groups for another number of samples, for a stream, or without `drop_last`.
    pub fn with_groups(
        source: Arc<dyn Dataset>,
        config: LoaderConfig,
        rank: Rank,
        map: Map<T>,
        mut position: Position,
        groups: Option<BatchGroups>,
    ) -> Result<Self> {
        let name = source.name().to_owned();
        let len = source.len();
        config.check(rank, &name, len)?;
        if (position.samples != 0 && position.samples != len) || position.index >= len {
            return Err(Error::PositionMismatch { name, saved: position.samples, present: len });
        }
        position.samples = len;
        let alone = [WeightedDataset { weight: 1.0, dataset: source.clone() }];
        let parts = source.mixture().unwrap_or(&alone);
        let weights = parts.iter().map(|part| part.weight).collect();
        let shuffled =
            (config.shuffle && source.mixture_is_shuffled()).then(|| ShuffledDraws::new(config.seed));
        let announced = vec![None; parts.len()];
        groups.as_ref().map_or(Ok(()), |groups| groups::check(groups, &*source, &config))?;
        let workers = start_workers(parts, &config, rank, map, &position, groups.as_ref())?;
        let ahead = (position.epoch, position.index);
        let report = Report::new(name, parts.iter().map(|part| part.dataset.name().to_owned()));
        Ok(Self {
            source,
            config,
            rank,
            weights,
            shuffled,
            groups: groups.map(|groups| (groups, GroupedEpoch::default())),
            position,
            ahead,
            pending: VecDeque::new(),
            in_flight: 0,
            largest: 0,
            announced,
            workers,
            report,
        })
    }

    /// Appends each bad sample as a line of JSON to the file at `path`, unless the file lists it already.
    ///
    /// # Errors
    /// The file cannot be written or read.
    pub fn log_bad_samples(&mut self, path: &Path) -> Result<()> {
        self.report.log_to(path)
    }

    /// The next batch. Epochs follow each other without end.
    ///
    /// # Errors
    /// More bad samples than allowed, an epoch without a batch, the end of a stream.
    pub fn next_batch(&mut self) -> Result<Batch<T>> {
        let begun = self.position.epoch;
        loop {
            if let Some(batch) = self.batch_before(u64::MAX)? {
                return Ok(batch);
            }
            if self.position.epoch > begun + 1 {
                return Err(Error::NoBatch { name: self.source.name().to_owned(), epoch: begun });
            }
        }
    }

    /// The batches up to the end of the current epoch, for evaluation. Nothing is read beyond it; the next
    /// call gives the next epoch.
    pub fn epoch(&mut self) -> impl Iterator<Item = Result<Batch<T>>> + '_ {
        let epoch = self.position.epoch;
        let mut failed = false;
        std::iter::from_fn(move || {
            while !failed && self.position.epoch == epoch {
                let batch = self.batch_before(epoch + 1).transpose();
                failed = matches!(batch, Some(Err(_)));
                if batch.is_some() {
                    return batch;
                }
            }
            None
        })
    }

    /// The position after the last returned batch.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The bad samples that this loader has read, each once.
    pub fn bad_samples(&self) -> &[BadSample] {
        self.report.bad_samples()
    }

    /// The total time that the caller has waited for samples. If it is most of the run, more workers or
    /// smaller files help.
    pub fn data_wait(&self) -> Duration {
        self.workers.waiting
    }

    /// The next batch; `None` where all of its samples are bad. Prefetches within epochs before `end`.
    fn batch_before(&mut self, end: u64) -> Result<Option<Batch<T>>> {
        self.read_ahead(end)?;
        let (Places { epoch, next, .. }, parts) =
            self.pending.pop_front().expect("at least one batch is prefetched");
        let mut items = Vec::new();
        let mut keys = Vec::new();
        let mut indices = Vec::new();
        for part in parts {
            if let Some((item, key, index)) = self.take(part)? {
                self.largest = self.largest.max(item.bytes());
                items.push(item);
                keys.push(key);
                indices.push(index);
            }
            self.in_flight -= 1;
        }
        let begun = self.position.epoch;
        (self.position.epoch, self.position.index) = next;
        if self.position.epoch != begun {
            self.report.end_epoch(begun);
        }
        Ok((!items.is_empty()).then(|| Batch {
            items,
            keys,
            indices,
            epoch,
            position: self.position.clone(),
        }))
    }

    /// The next sample of a data set of the mix; `None` where it is bad and not replaced.
    fn take(&mut self, part: usize) -> Result<Option<(T, String, usize)>> {
        loop {
            let outcome = self.workers.take(part)?;
            let streamed = matches!(self.workers.shared().feeds[part], Feed::Streamed(_));
            if streamed {
                self.position.streams.insert(part, self.workers.taken(part));
            }
            if outcome.ended {
                return Err(Error::StreamEnded {
                    name: self.source.name().to_owned(),
                    samples: self.workers.taken(part) - 1,
                });
            }
            self.report.count(part, &mut self.position, outcome.bad, self.config.max_bad_samples)?;
            if let (Some(warning), Some((_, key, _))) = (outcome.warning, &outcome.item) {
                self.report.warn(part, &mut self.position, key, &warning);
            }
            match outcome.item {
                Some(item) => return Ok(Some(item)),
                // A stream continues with its next sample.
                None if streamed => self.workers.send(part, 0, (0, 0)),
                None if self.config.drop_last => {
                    let name = self.source.name().to_owned();
                    return Err(Error::NoGoodSample { name, tried: feed::TRIES });
                }
                None => return Ok(None),
            }
        }
    }

    /// Sends the next samples to the workers, in order.
    fn read_ahead(&mut self, end: u64) -> Result<()> {
        let len = self.source.len();
        loop {
            let places = self.next_places(len)?;
            let slice = places.slice(self.config.batch_size, self.rank);
            let fits = self.pending.len() < self.config.prefetch.max(1)
                && (self.in_flight + slice.len()).saturating_mul(self.largest) <= self.config.prefetch_bytes;
            if !(self.pending.is_empty() || (fits && places.epoch < end)) {
                return Ok(());
            }
            let grouped = self.groups.is_some().then(|| self.grouped(places.epoch, len));
            let parts: Vec<usize> = slice
                .map(|place| {
                    let place = grouped.as_ref().map_or(place, |places| places[place] as usize);
                    self.send(places.epoch * len as u64 + place as u64)
                })
                .collect();
            self.in_flight += parts.len();
            self.ahead = places.next;
            self.pending.push_back((places, parts));
        }
    }

    /// Sends a draw to the workers, and returns the index of its data set in the mix.
    fn send(&mut self, draw: u64) -> usize {
        let drawn = self.shuffled.as_mut().map_or(draw, |shuffled| shuffled.at(draw));
        let (part, number) = order::mix(&self.weights, drawn);
        let place = match &self.workers.shared().feeds[part] {
            Feed::Numbered(feed) => {
                let len = feed.source.len() as u64;
                let (epoch, place) = (number / len, (number % len) as usize);
                announce(feed, (epoch, place), self.rank, &mut self.announced[part]);
                (epoch, place)
            }
            Feed::Streamed(_) => (0, 0),
        };
        self.workers.send(part, draw, place);
        part
    }
}

/// Opens the data sets of the mix and starts the threads.
fn start_workers<T: Item>(
    parts: &[WeightedDataset],
    config: &LoaderConfig,
    rank: Rank,
    map: Map<T>,
    position: &Position,
    groups: Option<&BatchGroups>,
) -> Result<Workers<T>> {
    let mut offset = 0;
    let mut feeds = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        feeds.push(feed(part, number, offset, config, rank, groups)?);
        offset += part.dataset.len();
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if config.workers == 0 { cores } else { config.workers };
    let first = |part| position.streams.get(&part).copied().unwrap_or(0);
    let shared = Shared {
        feeds,
        map,
        seed: config.seed,
        replace: config.drop_last,
        first: (0..parts.len()).map(first).collect(),
        bytes: AtomicU64::new(0),
        at: (0..count).map(|_| Mutex::new(None)).collect(),
    };
    let stall = Duration::try_from_secs_f64(config.stall_seconds.max(0.001)).unwrap_or(Duration::MAX);
    Workers::start(shared, stall)
}

fn feed(
    part: &WeightedDataset,
    number: usize,
    offset: usize,
    config: &LoaderConfig,
    rank: Rank,
    groups: Option<&BatchGroups>,
) -> Result<Feed> {
    let LoaderConfig { shuffle, resample, shuffle_window: window, seed, .. } = *config;
    let source = part.dataset.clone();
    Ok(match source.stream() {
        Some(stream) => {
            let order =
                StreamOrder { seed: shuffle.then(|| seed.wrapping_add(number as u64)), resample, rank };
            Feed::Streamed(Streamed::new(source.name().to_owned(), stream.read(order)?))
        }
        None => {
            let order = Order::new(&*source, OrderConfig { shuffle, resample, window, seed, part: number });
            Feed::Numbered(Numbered { source, order, offset, groups: groups.cloned() })
        }
    })
}

/// Announces to a data set the blocks of the next window.
fn announce(feed: &Numbered, (epoch, place): (u64, usize), rank: Rank, announced: &mut Option<(u64, usize)>) {
    // With several processes each needs a small part of each block: fetching whole blocks in every process
    // reads N times too much.
    if rank.world > 1 {
        return;
    }
    let (window, _) = feed.order.window_of(epoch, place);
    if *announced == Some((epoch, window)) {
        return;
    }
    let ahead = if announced.is_none() { 0..2 } else { 1..2 };
    ahead
        .flat_map(|ahead| feed.order.ranges(epoch, window + ahead))
        .for_each(|range| feed.source.will_need(range));
    *announced = Some((epoch, window));
}
