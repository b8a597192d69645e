//! Reads all samples of a data set once, in order: for packing, counting and contact sheets.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::{BadSample, Dataset, Error, Result, Sample, StreamOrder, StreamReader};

/// The number of samples that are read together.
pub(crate) const CHUNK: usize = 32;

/// A data set, read by index where possible and as a stream otherwise.
pub(crate) struct InOrder<'a> {
    source: &'a dyn Dataset,
    stream: Option<Mutex<Streamed>>,
}

struct Streamed {
    reading: Box<dyn StreamReader>,
    /// The number of samples read so far.
    position: usize,
}

impl<'a> InOrder<'a> {
    /// # Errors
    /// A stream that cannot be started; a mix with a stream in it, which has no order.
    pub fn new(source: &'a dyn Dataset) -> Result<Self> {
        if source.mixture().is_some_and(|mixture| mixture.iter().any(|part| part.dataset.stream().is_some()))
        {
            let reason = "mixes a stream, which has no order of samples: process its sources one by one";
            return Err(Error::Setting(format!("`{}` {reason}", source.name())));
        }
        let begin = |stream: &dyn crate::StreamingDataset| stream.read(StreamOrder::default());
        let reading = source.stream().map(begin).transpose()?;
        Ok(Self { source, stream: reading.map(|reading| Mutex::new(Streamed { reading, position: 0 })) })
    }

    /// The samples of a range of indices; fewer where a stream ends. For a stream, ranges must be increasing.
    pub fn read(&self, range: Range<usize>) -> Vec<(usize, std::result::Result<Sample, BadSample>)> {
        let Some(stream) = &self.stream else {
            self.source.will_need(range.clone());
            let one = |index| (index, self.sample(index));
            return range.map(one).collect();
        };
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = Vec::with_capacity(range.len());
        while stream.position < range.end {
            let Some(sample) = stream.reading.next() else { break };
            if stream.position >= range.start {
                samples.push((stream.position, sample));
            }
            stream.position += 1;
        }
        samples
    }

    fn sample(&self, index: usize) -> std::result::Result<Sample, BadSample> {
        Error::guarded(|| self.source.sample(index)).map_err(|error| self.bad(self.source.key(index), &error))
    }

    /// A [`BadSample`] for a sample that cannot be read.
    pub fn bad(&self, key: String, error: &Error) -> BadSample {
        BadSample {
            source: self.source.name().to_owned(),
            key,
            fault: error.fault(),
            reason: error.to_string(),
        }
    }
}

/// The number of threads that read a data set: 1 for a stream. `requested` = 0 means one per core.
pub(crate) fn threads(source: &dyn Dataset, requested: usize) -> usize {
    match requested {
        _ if source.stream().is_some() => 1,
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        requested => requested,
    }
}

/// Calls `work` with each of the numbers on several threads, started in order. After an error no further work
/// is started.
///
/// # Errors
/// The first error of `work`.
pub(crate) fn each(
    numbers: &[usize],
    threads: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let failed_now = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = || {
        while failed_now().is_none() {
            let Some(&number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = work(number) {
                failed_now().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, numbers.len().max(1)) {
            scope.spawn(thread);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
