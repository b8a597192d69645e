//! The work of packing: which shards are missing, and their making on threads.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::filter::Filter;
use super::filter_pass::{FilterPass, Judged, Outcome, Packed, Score, compare, compares};
use super::folder::Folder;
use super::manifest::{Job, Record, Shard};
use super::tar::TarFile;
use crate::tools::in_order::{CHUNK, InOrder, each, threads};
use crate::tools::stats::Stats;
use crate::{BadSample, Dataset, DatasetConfig, Error, Result};

/// Bad samples that the error of too many names.
const NAMED: usize = 10;

/// How a data set is packed.
#[derive(Debug, Clone, PartialEq)]
pub struct PackOptions {
    /// Samples of the data set, kept or not, to a shard: at least 1.
    pub samples_per_shard: usize,
    /// What is kept.
    pub filters: Vec<Filter>,
    /// Whether every image is decoded, so that one that is not whole is dropped; else its beginning alone is
    /// read.
    pub check_images: bool,
    /// Samples that may be unreadable before the packing stops; none: any number.
    pub max_bad_samples: Option<usize>,
    /// Threads, a shard each at a time; 0: one a core. The shards are the same for any number.
    pub workers: usize,
    /// Whether shards that are there are compared with their checksum, and not with their size alone.
    pub verify: bool,
    /// The name of the model that scores, for the manifest.
    pub model: Option<String>,
}

impl Default for PackOptions {
    /// A thousand samples to a shard, no filter, any number of bad samples.
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

/// How far a packing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether shards are written; before, all samples are compared with each other.
    pub writing: bool,
    /// Samples done.
    pub done: usize,
    /// Samples to do.
    pub of: usize,
}

/// What a folder of shards holds after a packing.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Samples of the data set.
    pub read: usize,
    /// What became of them, over all shards.
    pub all: Shard,
    /// Tars in the folder.
    pub shards: usize,
    /// Shards that were made now; the others were there.
    pub made: usize,
    /// Bytes that were written now.
    pub bytes_made: u64,
    /// What the shards hold.
    pub stats: Stats,
}

/// A packing.
pub struct Packing<'a> {
    /// The data set, open.
    pub source: &'a dyn Dataset,
    /// What it was opened from, for the manifest.
    pub data: &'a DatasetConfig,
    /// How.
    pub options: PackOptions,
    /// The model, where a filter asks for it.
    pub score: Option<Score<'a>>,
    /// Is told how far it is.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl Packing<'_> {
    /// Packs into the folder `out`, or goes on with what was begun there: `00000.tar` and so on,
    /// `manifest.json`, and `bad_samples.jsonl` where a sample could not be read. A kill at any moment leaves
    /// whole shards alone.
    ///
    /// Whether files of the data set have changed since the folder was begun is not looked at; their number
    /// is.
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
    /// Errors: `out` holds something else, or shards of another data set or other options; too many bad
    /// samples; no score where a filter asks for one; the disk is full or refuses. Shards that are whole
    /// stay.
    pub fn run(&self, out: &Path) -> Result<Summary> {
        let job = self.job()?;
        let folder = Folder::open(out, &job)?;
        let threads = threads(self.source, self.options.workers);
        let missing = folder.missing(self.options.verify, threads)?;
        let bad =
            Bad { name: self.source.name(), allowed: self.options.max_bad_samples, met: Mutex::default() };
        let verdicts = if compares(&job.filters) && !missing.is_empty() {
            let samples = InOrder::new(self.source)?;
            Some(self.verdicts(&folder, &self.judge(&samples, &job), threads, &bad)?)
        } else {
            folder.bad_samples(|known| bad.count(&known))?;
            None
        };
        // A stream that was read for its verdicts is read once more.
        let samples = InOrder::new(self.source)?;
        let judge = self.judge(&samples, &job);
        let (done, bytes_made) = (AtomicUsize::new(0), AtomicU64::new(0));
        let of = missing.iter().map(|&number| folder.range(number).len()).sum();
        each(&missing, threads, |number| {
            let record = self.shard(&folder, number, |chunk| {
                let judged = match &verdicts {
                    Some(verdicts) => judge.replay(chunk.clone(), verdicts)?,
                    None => {
                        let judged = judge.judge(chunk.clone())?;
                        judged.iter().try_for_each(|judged| bad.count_verdict(&judged.verdict))?;
                        judged
                    }
                };
                let done = chunk.len() + done.fetch_add(chunk.len(), Ordering::Relaxed);
                (self.progress)(Progress { writing: true, done, of });
                Ok(judged)
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
            return Err(Error::Setting(
                "samples per shard: 0 would need shards without end: give 1 or more".into(),
            ));
        }
        let filters = Filter::sorted(&self.options.filters)?;
        let scored = filters.iter().any(|filter| matches!(filter, Filter::ClipScore(_)));
        if scored && self.score.is_none() {
            return Err(Error::Setting("filter clip_score: it needs a model".into()));
        }
        let model = self.options.model.clone().filter(|_| scored);
        let samples = self.source.len();
        if samples == 0 {
            return Err(Error::Empty {
                name: self.source.name().to_owned(),
                hint: "there is nothing to pack".into(),
            });
        }
        Ok(Job { data: self.data.clone(), samples, samples_per_shard, filters, model, check_images })
    }

    fn judge<'b>(&'b self, samples: &'b InOrder<'b>, job: &'b Job) -> FilterPass<'b> {
        FilterPass { samples, filters: &job.filters, check_images: job.check_images, score: self.score }
    }

    /// Judges all samples, each for itself and then against those before it. What was said of each for itself
    /// is kept in files, for a packing that is ended and gone on with.
    fn verdicts(
        &self,
        folder: &Folder,
        judge: &FilterPass,
        threads: usize,
        bad: &Bad,
    ) -> Result<Vec<Outcome>> {
        let ranges: Vec<usize> = (0..folder.ranges()).collect();
        let all: Mutex<Vec<Vec<Outcome>>> = Mutex::new(vec![Vec::new(); ranges.len()]);
        let (done, of) = (AtomicUsize::new(0), self.source.len());
        each(&ranges, threads, |number| {
            let range = folder.range(number);
            let verdicts = match folder.verdicts(number) {
                Some(known) => known,
                None => {
                    let mut verdicts = Vec::with_capacity(range.len());
                    for chunk in chunks(range.clone()) {
                        verdicts.extend(judge.judge(chunk)?.into_iter().map(|judged| judged.verdict));
                    }
                    folder.keep_verdicts(number, &verdicts)?;
                    verdicts
                }
            };
            verdicts.iter().try_for_each(|verdict| bad.count_verdict(verdict))?;
            all.lock().unwrap_or_else(PoisonError::into_inner)[number] = verdicts;
            let done = range.len() + done.fetch_add(range.len(), Ordering::Relaxed);
            (self.progress)(Progress { writing: false, done, of });
            Ok(())
        })?;
        let mut verdicts = all.into_inner().unwrap_or_else(PoisonError::into_inner).concat();
        compare(judge.filters, &mut verdicts);
        Ok(verdicts)
    }

    /// Makes one shard of what `judge` says of each chunk of its range.
    fn shard(
        &self,
        folder: &Folder,
        number: usize,
        judge: impl Fn(Range<usize>) -> Result<Vec<Judged>>,
    ) -> Result<Record> {
        let mut tar: Option<TarFile> = None;
        let (mut shard, mut stats, mut bad_samples) = (Shard::default(), Stats::default(), Vec::new());
        for chunk in chunks(folder.range(number)) {
            for Judged { index, verdict, packed } in judge(chunk)? {
                match verdict {
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

/// A range in pieces that are read at once.
fn chunks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(CHUNK).map(move |start| start..range.end.min(start + CHUNK))
}

/// The bad samples met, and how many may be.
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

    fn count_verdict(&self, verdict: &Outcome) -> Result<()> {
        match verdict {
            Outcome::Bad(bad) => self.count(bad),
            Outcome::Kept(_) | Outcome::Filtered(_) => Ok(()),
        }
    }
}
