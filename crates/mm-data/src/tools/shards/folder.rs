//! The folder that is packed into: names, the lock, what is there already.

use std::fs::{File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::filter_pass::Outcome;
use super::manifest::{Job, Manifest, Record, Shard, read_json, write_json, write_whole};
use super::tar::sha256;
use crate::sources::walk::is_hidden;
use crate::tools::in_order::each;
use crate::tools::stats::Stats;
use crate::{BadSample, Error, Result};

const LOCK: &str = ".lock";
const MANIFEST: &str = "manifest.json";
const BAD_SAMPLES: &str = "bad_samples.jsonl";
/// The verdicts of a first pass, until all shards are there.
const VERDICTS: &str = "verdicts";

/// A folder of shards, held against other processes.
pub(super) struct Folder<'a> {
    path: PathBuf,
    job: &'a Job,
    _lock: File,
}

impl<'a> Folder<'a> {
    /// Makes the folder, or opens one that the same job has begun.
    ///
    /// Errors: something else is in it, another job's shards, or another process at work.
    pub fn open(path: &Path, job: &'a Job) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io(path))?;
        let mut entries =
            std::fs::read_dir(path).map_err(Error::io(path))?.map_while(std::result::Result::ok);
        let manifest = path.join(MANIFEST);
        let is_ours =
            |name: &std::ffi::OsStr| [LOCK, MANIFEST, "manifest.json.part"].iter().any(|ours| name == *ours);
        let is_other = |name: &std::ffi::OsStr| !is_ours(name) && !is_hidden(name);
        if !manifest.exists() && entries.any(|entry| is_other(&entry.file_name())) {
            let reason = "holds something else than shards: name another folder";
            return Err(Error::Setting(format!("{} {reason}", path.display())));
        }
        let lock = path.join(LOCK);
        let file = File::create(&lock).map_err(Error::io(&lock))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let reason = "another process is packing into it: wait for its end, or name another folder";
                return Err(Error::Setting(format!("{}: {reason}", path.display())));
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!("{}: {error}: do not pack into the folder twice at once", lock.display());
            }
            Ok(()) => {}
        }
        match read_json::<Manifest>(&manifest)? {
            None => write_json(&manifest, &Manifest { job: job.clone(), shards: None })?,
            Some(there) => {
                if let Some(difference) = job.difference(&there.job) {
                    let way_out = "give what it was begun with, or name another folder";
                    return Err(Error::Setting(format!(
                        "{} is of another packing ({difference}): {way_out}",
                        path.display()
                    )));
                }
            }
        }
        Ok(Self { path: path.to_owned(), job, _lock: file })
    }

    /// How many shards the data set makes.
    pub fn ranges(&self) -> usize {
        self.job.samples.div_ceil(self.job.samples_per_shard)
    }

    /// The samples of a shard.
    pub fn range(&self, number: usize) -> Range<usize> {
        let start = number * self.job.samples_per_shard;
        start..start.saturating_add(self.job.samples_per_shard).min(self.job.samples)
    }

    /// The name of a filter, by its place in the job's list.
    pub fn filter(&self, place: usize) -> String {
        self.job.filters.get(place).map_or("unknown", |filter| filter.name()).to_owned()
    }

    /// A shard's file, in the folder.
    pub fn tar_name(&self, number: usize) -> String {
        format!("{}.tar", self.name(number))
    }

    /// A shard's file.
    pub fn tar(&self, number: usize) -> PathBuf {
        self.path.join(self.tar_name(number))
    }

    /// Notes that a shard is whole.
    pub fn record(&self, number: usize, record: &Record) -> Result<()> {
        write_json(&self.record_path(number), record)?;
        self.sync()
    }

    /// The shards that are to be made: those without a record, and those whose file is another than the
    /// record says, in size or, with `verify`, in its checksum.
    pub fn missing(&self, verify: bool, threads: usize) -> Result<Vec<usize>> {
        let all: Vec<usize> = (0..self.ranges()).collect();
        let missing = Mutex::new(Vec::new());
        each(&all, threads, |number| {
            // A record that cannot be read back is none.
            let record = read_json::<Record>(&self.record_path(number)).ok().flatten();
            if !record.is_some_and(|record| self.is_whole(number, &record.shard, verify)) {
                missing.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            }
            Ok(())
        })?;
        let mut missing = missing.into_inner().unwrap_or_else(PoisonError::into_inner);
        missing.sort_unstable();
        for &number in &missing {
            let record = self.record_path(number);
            if record.exists() {
                tracing::warn!("{} is not what its record says: it is made anew", self.tar(number).display());
                std::fs::remove_file(&record).map_err(Error::io(&record))?;
            }
        }
        Ok(missing)
    }

    fn is_whole(&self, number: usize, shard: &Shard, verify: bool) -> bool {
        let tar = self.tar(number);
        shard.file.is_none()
            || tar.metadata().is_ok_and(|tar| tar.len() == shard.bytes)
                && (!verify || sha256(&tar).is_ok_and(|sum| sum == shard.sha256))
    }

    /// The verdicts of a range, if they were kept.
    pub fn verdicts(&self, number: usize) -> Option<Vec<Outcome>> {
        read_json(&self.verdicts_path(number)).ok().flatten()
    }

    /// Keeps the verdicts of a range.
    pub fn keep_verdicts(&self, number: usize, verdicts: &[Outcome]) -> Result<()> {
        let folder = self.path.join(VERDICTS);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        write_json(&self.verdicts_path(number), &verdicts)
    }

    /// Tells of all bad samples in the records that are there.
    pub fn bad_samples(&self, mut tell: impl FnMut(BadSample) -> Result<()>) -> Result<()> {
        for number in 0..self.ranges() {
            let record = read_json::<Record>(&self.record_path(number))?;
            record.into_iter().flat_map(|record| record.bad_samples).try_for_each(&mut tell)?;
        }
        Ok(())
    }

    /// Sums up all records, and writes the manifest and the bad samples. Gives what became of all samples,
    /// the number of tars and what is in them.
    pub fn finish(&self, job: &Job) -> Result<(Shard, usize, Stats)> {
        let (mut all, mut stats) = (Shard::default(), Stats::default());
        let mut shards = Vec::with_capacity(self.ranges());
        for number in 0..self.ranges() {
            let path = self.record_path(number);
            let gone = || Error::Setting(format!("{} is gone while packing: pack again", path.display()));
            let record = read_json::<Record>(&path)?.ok_or_else(gone)?;
            all.add(&record.shard);
            stats.merge(&record.stats);
            shards.push(record.shard);
        }
        let tars = shards.iter().filter(|shard| shard.file.is_some()).count();
        let bad = self.path.join(BAD_SAMPLES);
        if all.bad.is_empty() {
            let _ = std::fs::remove_file(&bad); // of an earlier packing, when there was one
        } else {
            write_whole(&bad, |file| {
                self.bad_samples(|sample| {
                    let line = serde_json::to_string(&sample).map_err(std::io::Error::from);
                    line.and_then(|line| writeln!(file, "{line}")).map_err(Error::io(&bad))
                })
            })?;
        }
        write_json(&self.path.join(MANIFEST), &Manifest { job: job.clone(), shards: Some(shards) })?;
        let _ = std::fs::remove_dir_all(self.path.join(VERDICTS)); // it is there after a first pass alone
        self.sync()?;
        Ok((all, tars, stats))
    }

    /// A number of as many digits as the last shard has, five at least, so that names sort as numbers do.
    fn name(&self, number: usize) -> String {
        let width = self.ranges().saturating_sub(1).to_string().len().max(5);
        format!("{number:0width$}")
    }

    fn record_path(&self, number: usize) -> PathBuf {
        self.path.join(format!("{}.json", self.name(number)))
    }

    fn verdicts_path(&self, number: usize) -> PathBuf {
        self.path.join(VERDICTS).join(format!("{}.json", self.name(number)))
    }

    /// Puts renamed files on the disk.
    fn sync(&self) -> Result<()> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(Error::io(&self.path))
    }
}
