//! The traits of data sets: samples by index, or as a stream.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{BadSample, Result, Sample};

/// A data set: samples by index. The [`Loader`](crate::Loader) reads any of these.
pub trait Dataset: Send + Sync {
    /// The name for logs: the kind and the path.
    fn name(&self) -> &str;

    /// The number of samples, bad ones included.
    fn len(&self) -> usize;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample at an index below [`len`](Self::len). Cheap: it decodes nothing.
    ///
    /// # Errors
    /// This sample cannot be read; others may be fine.
    fn sample(&self, index: usize) -> Result<Sample>;

    /// The key of a sample, for reports when the sample itself cannot be read.
    fn key(&self, index: usize) -> String {
        format!("#{index}")
    }

    /// The location of a sample, without reading it: for messages about a stalled loader.
    fn location(&self, index: usize) -> String {
        format!("{} #{index}", self.name())
    }

    /// The lengths of the blocks of consecutive samples that are best read in sequence, over the whole data
    /// set. `None` where access is random. Shuffling keeps blocks together within its window.
    fn blocks(&self) -> Option<Vec<u32>> {
        None
    }

    /// The number of blocks that can be read alternately without reading any of them twice; `None` for no
    /// limit.
    fn blocks_at_once(&self) -> Option<usize> {
        None
    }

    /// Announces that these samples, a block or a part of one, will be read soon.
    fn will_need(&self, indices: Range<usize>) {
        let _ = indices;
    }

    /// The credit that the licence of the data requires wherever samples are shown; empty where there is
    /// none.
    fn credit(&self) -> &str {
        ""
    }

    /// The data sets that a mix consists of; `None` for any other data set.
    fn mixture(&self) -> Option<&[WeightedDataset]> {
        None
    }

    /// Whether the draws of a mix are shuffled, some thousand at a time. Otherwise its data sets alternate
    /// evenly, and of hundreds of rare ones the same few would share a batch every time.
    fn mixture_is_shuffled(&self) -> bool {
        false
    }

    /// The samples as a stream, where they can only be read in sequence and not by index.
    fn stream(&self) -> Option<&dyn StreamingDataset> {
        None
    }
}

/// A data set in a mix.
#[derive(Clone)]
pub struct WeightedDataset {
    /// The weight of the data set, relative to the sum of all weights.
    pub weight: f64,
    /// The data set.
    pub dataset: Arc<dyn Dataset>,
}

/// Samples that can only be read in sequence: the output of a command, a compressed tar.
pub trait StreamingDataset: Send + Sync {
    /// Starts reading at the beginning. Epochs follow each other without end, unless the input can be read
    /// only once. The order of samples depends on `order` alone, provided that commands and files give the
    /// same bytes again.
    ///
    /// # Errors
    /// There are fewer shards than processes.
    fn read(&self, order: StreamOrder) -> Result<Box<dyn StreamReader>>;
}

/// The order in which a [`StreamingDataset`] is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOrder {
    /// The seed of the shuffling; `None` reads in stored order.
    pub seed: Option<u64>,
    /// Whether shards are drawn with replacement.
    pub resample: bool,
    /// The process whose share of the shards is read.
    pub rank: Rank,
}

/// A reader of a [`StreamingDataset`].
pub trait StreamReader: Send {
    /// The next sample, bad ones included; `None` at the final end.
    fn next(&mut self) -> Option<std::result::Result<Sample, BadSample>>;

    /// The state of the reader, for other threads.
    fn handle(&self) -> Arc<StreamHandle>;
}

/// The state of a [`StreamReader`], seen from other threads, and the way to stop it.
#[derive(Default)]
pub struct StreamHandle {
    /// The current shard.
    pub shard: Mutex<String>,
    /// Bytes read so far.
    pub bytes: AtomicU64,
    /// Samples in the shuffle buffer.
    pub buffered: AtomicUsize,
    /// The action of [`stop`](Self::stop).
    pub on_stop: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl StreamHandle {
    /// Ends the reading, even while a thread waits for the next sample, which is then `None`.
    pub fn stop(&self) {
        let on_stop = self.on_stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_stop) = on_stop {
            on_stop();
        }
    }
}

/// The rank of a process in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// The index of the process, from 0.
    pub index: usize,
    /// The number of processes.
    pub world: usize,
}

impl Default for Rank {
    /// A single process.
    fn default() -> Self {
        Self { index: 0, world: 1 }
    }
}
