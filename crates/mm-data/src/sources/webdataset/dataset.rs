//! Plain local tars as a [`Dataset`] with access by index.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{Advice, fadvise};

use super::index::{Index, Summary};
use super::members::{self, MAX_SAMPLE_BYTES};
use crate::tools::in_order::each;
use crate::{Dataset, Error, Fault, Result, Sample};

/// The number of threads that index shards: more than cores, because the disk is the bottleneck.
const INDEXERS: usize = 8;

/// The number of shards kept open, with two files each: by default a process may open 1,024 files.
const OPEN_SHARDS: usize = 128;

/// The approximate size of a block in bytes, large enough that seek time is negligible.
const BLOCK_BYTES: u64 = 4 << 20;

/// The maximum number of samples in a block, so that a shuffle window has many blocks even with small
/// samples.
const BLOCK_SAMPLES: u64 = 128;

/// Shards with access by index.
pub(super) struct TarDataset {
    name: String,
    shards: Vec<Known>,
    /// The index of the first sample of each shard.
    starts: Vec<usize>,
    len: usize,
    caption_field: String,
    index_dir: Option<PathBuf>,
    open: Mutex<VecDeque<(usize, Arc<OpenShard>)>>,
}

/// A shard with the summary of its index.
struct Known {
    path: PathBuf,
    summary: Summary,
    /// The open shard, if its index could not be written to a file.
    kept: Option<Arc<OpenShard>>,
}

struct OpenShard {
    tar: File,
    index: Index,
}

impl TarDataset {
    /// Opens the shards. Those without an index are indexed now, in parallel. A shard that cannot be read is
    /// one bad sample.
    ///
    /// # Errors
    /// No shard can be read.
    pub fn open(
        name: String,
        paths: Vec<PathBuf>,
        caption_field: &str,
        index_dir: Option<&Path>,
    ) -> Result<Self> {
        let shards = know(paths, index_dir);
        let unreadable: Vec<&Known> = shards.iter().filter(|shard| shard.summary.bytes == 0).collect();
        if let Some(first) = unreadable.first() {
            let reason = first.summary.broken.as_deref().unwrap_or_default();
            if unreadable.len() == shards.len() {
                let reason = format!(
                    "none of its {} shards can be read; the first: {}: {reason}",
                    shards.len(),
                    first.path.display()
                );
                return Err(Error::Setting(format!("`{name}`: {reason}")));
            }
            tracing::warn!(
                "`{name}`: {} of {} shards cannot be read, each is counted as a bad sample; the first: {}: \
                 {reason}",
                unreadable.len(),
                shards.len(),
                first.path.display()
            );
        }
        let mut len = 0;
        let mut starts = Vec::with_capacity(shards.len());
        for shard in &shards {
            starts.push(len);
            len += shard.samples();
        }
        let caption_field = caption_field.to_owned();
        let index_dir = index_dir.map(Path::to_owned);
        Ok(Self { name, shards, starts, len, caption_field, index_dir, open: Mutex::default() })
    }

    /// The shard of a sample, and the index of the sample in it.
    fn find(&self, index: usize) -> (usize, usize) {
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (shard, index - self.starts[shard])
    }

    fn shard(&self, number: usize) -> Result<Arc<OpenShard>> {
        let known = &self.shards[number];
        if let Some(kept) = &known.kept {
            return Ok(kept.clone());
        }
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, open)) = lock().iter().find(|(there, _)| *there == number) {
            return Ok(open.clone());
        }
        let shard = Arc::new(OpenShard::open(&known.path, self.index_dir.as_deref())?);
        if shard.index.samples() != known.summary.samples {
            return Err(Error::bad(Fault::Shard, "the shard has changed since the start of the run"));
        }
        let mut open = lock();
        open.push_back((number, shard.clone()));
        if open.len() > OPEN_SHARDS {
            open.pop_front();
        }
        Ok(shard)
    }

    /// The key of a sample, from the index of its shard.
    fn key_in(&self, shard: &OpenShard, index: usize) -> String {
        let (number, place) = self.find(index);
        let path = self.shards[number].path.display();
        shard.index.key(place).map_or_else(|| self.location(index), |key| format!("{path}/{key}"))
    }
}

impl Known {
    /// The number of samples, plus one for the part that cannot be read.
    fn samples(&self) -> usize {
        self.summary.samples + usize::from(self.summary.broken.is_some())
    }
}

impl OpenShard {
    fn open(path: &Path, index_dir: Option<&Path>) -> Result<Self> {
        let index = Index::open(path, index_dir)?;
        Ok(Self { tar: File::open(path).map_err(Error::io(path))?, index })
    }
}

/// Reads the summaries of all shards, in order.
fn know(paths: Vec<PathBuf>, index_dir: Option<&Path>) -> Vec<Known> {
    let one = |path: &PathBuf| match OpenShard::open(path, index_dir) {
        Ok(shard) => (shard.index.summary(), shard.index.is_in_memory().then(|| Arc::new(shard))),
        Err(error) => (Summary { samples: 0, broken: Some(error.to_string()), bytes: 0 }, None),
    };
    let found: Vec<OnceLock<(Summary, Option<Arc<OpenShard>>)>> =
        paths.iter().map(|_| OnceLock::new()).collect();
    let numbers: Vec<usize> = (0..paths.len()).collect();
    each(&numbers, INDEXERS, |number| {
        found[number].get_or_init(|| one(&paths[number]));
        Ok(())
    })
    .expect("an unreadable shard is not an error here");
    let known = |(path, found): (PathBuf, OnceLock<_>)| {
        let (summary, kept) = found.into_inner().expect("each shard was read");
        Known { path, summary, kept }
    };
    paths.into_iter().zip(found).map(known).collect()
}

impl Dataset for TarDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.len
    }

    fn key(&self, index: usize) -> String {
        let (number, place) = self.find(index);
        let Known { path, summary, .. } = &self.shards[number];
        match self.shard(number) {
            _ if place == summary.samples => path.display().to_string(),
            Ok(shard) => self.key_in(&shard, index),
            Err(_) => self.location(index),
        }
    }

    fn location(&self, index: usize) -> String {
        let (shard, place) = self.find(index);
        format!("{}, sample {place}", self.shards[shard].path.display())
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (number, place) = self.find(index);
        let known = &self.shards[number];
        if let Some(broken) = known.summary.broken.as_ref().filter(|_| place == known.summary.samples) {
            return Err(Error::bad(Fault::Shard, broken.clone()));
        }
        let damaged =
            || Error::bad(Fault::Shard, "its index is damaged: remove the .index file and start again");
        let gone = |error: String| Error::bad(Fault::Shard, error);
        let shard = self.shard(number).map_err(|error| gone(error.to_string()))?;
        let extent = shard.index.extent(place).ok_or_else(damaged)?;
        if extent.length > MAX_SAMPLE_BYTES {
            return Err(gone(format!("a sample of {} bytes, more than {MAX_SAMPLE_BYTES}", extent.length)));
        }
        let mut bytes = vec![0; extent.length as usize];
        shard
            .tar
            .read_exact_at(&mut bytes, extent.start)
            .map_err(|error| gone(format!("{}: {error}", known.path.display())))?;
        let members = members::members(&bytes, extent.start)?;
        members::sample(&self.key_in(&shard, index), members, &self.caption_field)
            .map_err(|error| members::with_other_place(error, shard.index.other_place(place)))
    }

    fn blocks(&self) -> Option<Vec<u32>> {
        let mut blocks = Vec::new();
        for shard in &self.shards {
            let mean = (shard.summary.bytes / shard.samples() as u64).max(1);
            let most = (BLOCK_BYTES / mean).clamp(8, BLOCK_SAMPLES) as usize;
            let count = shard.samples().div_ceil(most);
            // The blocks of a shard differ by at most one sample.
            blocks.extend((0..count).map(|block| {
                ((block + 1) * shard.samples() / count - block * shard.samples() / count) as u32
            }));
        }
        Some(blocks)
    }

    fn will_need(&self, indices: Range<usize>) {
        let Some(last) = indices.end.checked_sub(1).filter(|last| indices.contains(last)) else { return };
        let ((number, first), (same, last)) = (self.find(indices.start), self.find(last));
        let last = last.min(self.shards[number].summary.samples.saturating_sub(1));
        let Ok(shard) = self.shard(number) else { return };
        if let (true, Some(first), Some(last)) =
            (number == same, shard.index.extent(first), shard.index.extent(last))
        {
            let length = std::num::NonZero::new((last.start + last.length).saturating_sub(first.start));
            // It is only advice; failure has no effect.
            let _ = fadvise(&shard.tar, first.start, length, Advice::WillNeed);
        }
    }
}
