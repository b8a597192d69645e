//! Packs a data set: finds the missing shards, and writes them on threads.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::filter::Filter;
use super::filter_pass::{FilterPass, FilteredSample, Outcome, Packed, Score, compare, compares};
use super::folder::Folder;
use super::manifest::{Job, Record, Shard};
use super::tar::TarFile;
use crate::tools::in_order::{CHUNK, InOrder, each, threads};
use crate::tools::stats::Stats;
use crate::{BadSample, Dataset, DatasetConfig, Error, Result};

/// The number of bad samples that the error of too many lists.
const NAMED: usize = 10;

/// The options of a packing.
#[derive(Debug, Clone, PartialEq)]
pub struct PackOptions {
    /// Samples of the data set per shard, before filtering: at least 1.
    pub samples_per_shard: usize,
    /// The filters; a sample is kept if it passes all.
    pub filters: Vec<Filter>,
    /// Whether all images are decoded, to drop corrupt ones; otherwise only their headers are read.
    pub check_images: bool,
    /// The allowed number of unreadable samples; `None` for any number.
    pub max_bad_samples: Option<usize>,
    /// The number of threads, each for one shard at a time; 0 for one per core. Shards do not depend on it.
    pub workers: usize,
    /// Whether existing shards are compared by checksum, not only by size.
    pub verify: bool,
    /// The name of the scoring model, for the manifest.
    pub model: Option<String>,
}

impl Default for PackOptions {
    /// A thousand samples per shard, no filter, any number of bad samples.
    fn default() -> Self {
        Self {
            samples_per_shard: 1000,
            filters: Vec::new(),
            check_images: false,
            max_bad_samples: None,
            workers: 0,
            verify: false,
            model: None,
        }
    }
}

/// The progress of a packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether shards are being written; false in the first pass, which finds duplicates.
    pub writing: bool,
    /// The number of samples done.
    pub done: usize,
    /// The total number of samples of this pass.
    pub of: usize,
}

/// The result of a packing.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The number of samples of the data set.
    pub read: usize,
    /// The counts over all shards.
    pub all: Shard,
    /// The number of tars in the folder.
    pub shards: usize,
    /// The number of shards written now; the others existed.
    pub made: usize,
    /// The number of bytes written now.
    pub bytes_made: u64,
    /// The statistics of the samples in the shards.
    pub stats: Stats,
}

/// A packing of a data set into a folder of shards.
pub struct Packing<'a> {
    /// The open data set.
    pub source: &'a dyn Dataset,
    /// Its config, for the manifest.
    pub data: &'a DatasetConfig,
    /// The options.
    pub options: PackOptions,
    /// The scoring model, if a filter needs it.
    pub score: Option<Score<'a>>,
    /// Called with the progress.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl Packing<'_> {
    /// Packs into the folder `out`, or resumes a packing there: writes `00000.tar` and so on,
    /// `manifest.json`, and `bad_samples.jsonl` if a sample cannot be read. An interruption at any moment
    /// leaves only complete shards.
    ///
    /// A change in the number of samples since the start is detected, a change of their contents is not.
    ///
    /// ```
    /// use mm_data::{DatasetConfig, shards::{PackOptions, Packing}};
    ///
    /// let data: DatasetConfig = toml::from_str("kind = 'emoji'\nsplit = 'held_out'")?;
    /// let folder = tempfile::tempdir()?;
    /// let options = PackOptions { filters: vec!["caption_words=2..".parse()?], ..PackOptions::default() };
    /// let source = data.open()?;
    /// let packing = Packing { source: &*source, data: &data, options, score: None, progress: &|_| {} };
    /// let summary = packing.run(folder.path())?;
    /// assert_eq!(summary.all.samples + summary.all.filtered["caption_words"], 394);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `out` has other contents, or shards of another data set or with other options; too many bad samples;
    /// no model where a filter needs one; a file cannot be written. Complete shards are kept.
    pub fn run(&self, out: &Path) -> Result<Summary> {
        let job = self.job()?;
        let folder = Folder::open(out, &job)?;
        let threads = threads(self.source, self.options.workers);
        let missing = folder.missing(self.options.verify, threads)?;
        let bad =
            Bad { name: self.source.name(), allowed: self.options.max_bad_samples, met: Mutex::default() };
        let outcomes = if compares(&job.filters) && !missing.is_empty() {
            let samples = InOrder::new(self.source)?;
            Some(self.outcomes(&folder, &self.pass(&samples, &job), threads, &bad)?)
        } else {
            folder.bad_samples(|known| bad.count(&known))?;
            None
        };
        // A stream that was read in the first pass is read again.
        let samples = InOrder::new(self.source)?;
        let pass = self.pass(&samples, &job);
        let done = AtomicUsize::new(0);
        let bytes_made = AtomicU64::new(0);
        let of = missing.iter().map(|&number| folder.range(number).len()).sum();
        each(&missing, threads, |number| {
            let record = self.shard(&folder, number, |chunk| {
                let filtered = match &outcomes {
                    Some(outcomes) => pass.replay(chunk.clone(), outcomes)?,
                    None => {
                        let filtered = pass.filter(chunk.clone())?;
                        filtered.iter().try_for_each(|filtered| bad.count_outcome(&filtered.outcome))?;
                        filtered
                    }
                };
                let done = chunk.len() + done.fetch_add(chunk.len(), Ordering::Relaxed);
                (self.progress)(Progress { writing: true, done, of });
                Ok(filtered)
            })?;
            bytes_made.fetch_add(record.shard.bytes, Ordering::Relaxed);
            folder.record(number, &record)
        })?;
        let (all, shards, stats) = folder.finish(&job)?;
        Ok(Summary {
            read: job.samples,
            all,
            shards,
            made: missing.len(),
            bytes_made: bytes_made.into_inner(),
            stats,
        })
    }

    fn job(&self) -> Result<Job> {
        let PackOptions { samples_per_shard, check_images, .. } = self.options;
        if samples_per_shard == 0 {
            return Err(Error::Setting("samples per shard = 0: it must be 1 or more".into()));
        }
        let filters = Filter::sorted(&self.options.filters)?;
        let scored = filters.iter().any(|filter| matches!(filter, Filter::ClipScore(_)));
        if scored && self.score.is_none() {
            return Err(Error::Setting("filter clip_score needs a model".into()));
        }
        let model = self.options.model.clone().filter(|_| scored);
        let samples = self.source.len();
        if samples == 0 {
            return Err(Error::Empty {
                name: self.source.name().to_owned(),
                hint: "the data set has nothing to pack".into(),
            });
        }
        Ok(Job { data: self.data.clone(), samples, samples_per_shard, filters, model, check_images })
    }

    fn pass<'b>(&'b self, samples: &'b InOrder<'b>, job: &'b Job) -> FilterPass<'b> {
        FilterPass { samples, filters: &job.filters, check_images: job.check_images, score: self.score }
    }

    /// The first pass: filters all samples, and then compares them with each other. The outcomes before the
    /// comparison are stored in files, to resume an interrupted packing.
    fn outcomes(
        &self,
        folder: &Folder,
        pass: &FilterPass,
        threads: usize,
        bad: &Bad,
    ) -> Result<Vec<Outcome>> {
        let ranges: Vec<usize> = (0..folder.ranges()).collect();
        let all: Mutex<Vec<Vec<Outcome>>> = Mutex::new(vec![Vec::new(); ranges.len()]);
        let done = AtomicUsize::new(0);
        let of = self.source.len();
        each(&ranges, threads, |number| {
            let range = folder.range(number);
            let outcomes = match folder.outcomes(number) {
                Some(known) => known,
                None => {
                    let mut outcomes = Vec::with_capacity(range.len());
                    for chunk in chunks(range.clone()) {
                        outcomes.extend(pass.filter(chunk)?.into_iter().map(|filtered| filtered.outcome));
                    }
                    folder.keep_outcomes(number, &outcomes)?;
                    outcomes
                }
            };
            outcomes.iter().try_for_each(|outcome| bad.count_outcome(outcome))?;
            all.lock().unwrap_or_else(PoisonError::into_inner)[number] = outcomes;
            let done = range.len() + done.fetch_add(range.len(), Ordering::Relaxed);
            (self.progress)(Progress { writing: false, done, of });
            Ok(())
        })?;
        let mut outcomes = all.into_inner().unwrap_or_else(PoisonError::into_inner).concat();
        compare(pass.filters, &mut outcomes);
        Ok(outcomes)
    }

    /// Writes one shard from the outcomes of each chunk of its range.
    fn shard(
        &self,
        folder: &Folder,
        number: usize,
        pass: impl Fn(Range<usize>) -> Result<Vec<FilteredSample>>,
    ) -> Result<Record> {
        let mut tar: Option<TarFile> = None;
        let mut shard = Shard::default();
        let mut stats = Stats::default();
        let mut bad_samples = Vec::new();
        for chunk in chunks(folder.range(number)) {
            for FilteredSample { index, outcome, packed } in pass(chunk)? {
                match outcome {
                    Outcome::Kept(_) => shard.samples += 1,
                    Outcome::Filtered(filter) => {
                        *shard.filtered.entry(folder.filter(filter)).or_default() += 1
                    }
                    Outcome::Bad(bad) => {
                        *shard.bad.entry(bad.fault).or_default() += 1;
                        bad_samples.push(*bad);
                    }
                }
                if let Some(Packed { sample, images, members }) = packed {
                    let tar = match &mut tar {
                        Some(tar) => tar,
                        none => none.insert(TarFile::create(folder.tar(number))?),
                    };
                    tar.append(&format!("{index:09}"), &members)?;
                    stats.add(&sample, &images);
                }
            }
        }
        if let Some(tar) = tar {
            (shard.bytes, shard.sha256) = tar.finish()?;
            shard.file = Some(folder.tar_name(number));
        }
        Ok(Record { shard, stats, bad_samples })
    }
}

/// A range in chunks that are read together.
fn chunks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(CHUNK).map(move |start| start..range.end.min(start + CHUNK))
}

/// The bad samples so far, and the allowed number.
struct Bad<'a> {
    name: &'a str,
    allowed: Option<usize>,
    met: Mutex<(usize, Vec<String>)>,
}

impl Bad<'_> {
    fn count(&self, bad: &BadSample) -> Result<()> {
        let Some(allowed) = self.allowed else { return Ok(()) };
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, first) = &mut *met;
        *count += 1;
        if first.len() < NAMED {
            first.push(format!("{}: {}", bad.key, bad.reason));
        }
        if *count <= allowed {
            return Ok(());
        }
        Err(Error::TooManyBad { name: self.name.to_owned(), count: *count, allowed, first: first.clone() })
    }

    fn count_outcome(&self, outcome: &Outcome) -> Result<()> {
        match outcome {
            Outcome::Bad(bad) => self.count(bad),
            Outcome::Kept(_) | Outcome::Filtered(_) => Ok(()),
        }
    }
}
