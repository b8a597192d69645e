//! The traits of what has samples: by number, in a mix, or as a stream.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{BadSample, Result, Sample};

/// A data set: samples by number. The [`Loader`](crate::Loader) reads any of these.
pub trait Dataset: Send + Sync {
    /// The name for logs: the kind and the path.
    fn name(&self) -> &str;

    /// How many samples there are, bad ones included.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample of an index below [`len`](Self::len). Cheap: it decodes nothing.
    /// Errors: this sample is broken; the others may be whole.
    fn sample(&self, index: usize) -> Result<Sample>;

    /// The key of a sample, for reports of one that cannot be read.
    fn key(&self, index: usize) -> String {
        format!("#{index}")
    }

    /// Where a sample lies, told without reading anything: for who waits for it.
    fn location(&self, index: usize) -> String {
        format!("{} #{index}", self.name())
    }

    /// How many consecutive samples lie together and are best read one after the other, block by block to the
    /// end of the source; none where samples lie anywhere. Shuffling keeps blocks together, as far as its
    /// window goes.
    fn blocks(&self) -> Option<Vec<u32>> {
        None
    }

    /// How many blocks can be read from in turns without reading any of them twice; none where any number
    /// can.
    fn blocks_at_once(&self) -> Option<usize> {
        None
    }

    /// Tells that these samples, a block or a part of one, are read soon.
    fn will_need(&self, indices: Range<usize>) {
        let _ = indices;
    }

    /// The credit that the licence of the data requires wherever samples are shown; empty where there is none.
    fn credit(&self) -> &str {
        ""
    }

    /// The sources that this one mixes; none where it stands for itself.
    fn parts(&self) -> Option<&[Part]> {
        None
    }

    /// The samples in the only order that they can be read in, where they cannot be read by number.
    fn stream(&self) -> Option<&dyn StreamingDataset> {
        None
    }
}

/// A source in a mix.
#[derive(Clone)]
pub struct Part {
    /// Its share of what is drawn, against the weights of the others.
    pub weight: f64,
    /// The source.
    pub source: Arc<dyn Dataset>,
}

/// Samples that come one after the other and cannot be asked for by number: a command's output, a compressed
/// tar.
pub trait StreamingDataset: Send + Sync {
    /// Reads from the beginning, without end unless what is read ends for good; epoch follows epoch. What
    /// comes follows from `order` alone, if the commands and files give the same bytes again.
    ///
    /// Errors: there is less than one shard for each process.
    fn read(&self, order: StreamOrder) -> Result<Box<dyn StreamReader>>;
}

/// In which order a [`StreamingDataset`] comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOrder {
    /// What the shuffling follows from; none: as it lies.
    pub seed: Option<u64>,
    /// Whether shards are drawn with replacement.
    pub resample: bool,
    /// Whose shards.
    pub split: Rank,
}

/// A [`StreamingDataset`] being read.
pub trait StreamReader: Send {
    /// The next sample, bad ones included; none at an end for good.
    fn next(&mut self) -> Option<std::result::Result<Sample, BadSample>>;

    /// What can be told of the reading while it goes on.
    fn watch(&self) -> Arc<StreamHandle>;
}

/// How far a [`StreamReader`] is, and its end from outside, for who waits for it.
#[derive(Default)]
pub struct StreamHandle {
    /// The shard that is being read.
    pub shard: Mutex<String>,
    /// Bytes read so far.
    pub bytes: AtomicU64,
    /// Samples in the shuffle buffer.
    pub buffered: AtomicUsize,
    /// What [`stop`](Self::stop) does.
    pub on_stop: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl StreamHandle {
    /// Ends the reading, even while somebody waits for its next sample: there is none then.
    pub fn stop(&self) {
        let on_stop = self.on_stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_stop) = on_stop {
            on_stop();
        }
    }
}

/// Which part of the work is one process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// The process, from 0.
    pub index: usize,
    /// How many processes there are.
    pub world: usize,
}

impl Default for Rank {
    /// One process does all.
    fn default() -> Self {
        Self { index: 0, world: 1 }
    }
}
