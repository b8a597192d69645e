//! The output folder of a packing: file names, the lock, and the shards that are complete.

use std::fs::{File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::filter_pass::Outcome;
use super::manifest::{Job, Manifest, Record, Shard, read_json, write_atomic, write_json};
use super::tar::sha256;
use crate::sources::walk::is_hidden;
use crate::tools::in_order::each;
use crate::tools::stats::Stats;
use crate::{BadSample, Error, Result};

const LOCK: &str = ".lock";
const MANIFEST: &str = "manifest.json";
const BAD_SAMPLES: &str = "bad_samples.jsonl";
/// The folder of the outcomes of a first pass, until all shards are complete.
const OUTCOMES: &str = "outcomes";

/// A folder of shards, locked against other processes.
pub(super) struct Folder<'a> {
    path: PathBuf,
    job: &'a Job,
    lock: File,
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        // A process that another thread starts has a copy of the file for a moment, which would keep the
        // lock.
        let _ = self.lock.unlock();
    }
}

impl<'a> Folder<'a> {
    /// Creates the folder, or opens one of the same job.
    ///
    /// # Errors
    /// The folder has other contents or shards of another job, or another process is packing into it.
    pub fn open(path: &Path, job: &'a Job) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io(path))?;
        let mut entries =
            std::fs::read_dir(path).map_err(Error::io(path))?.map_while(std::result::Result::ok);
        let manifest = path.join(MANIFEST);
        let is_ours =
            |name: &std::ffi::OsStr| [LOCK, MANIFEST, "manifest.json.part"].iter().any(|ours| name == *ours);
        let is_other = |name: &std::ffi::OsStr| !is_ours(name) && !is_hidden(name);
        if !manifest.exists() && entries.any(|entry| is_other(&entry.file_name())) {
            let reason = "has other files than shards: choose another folder";
            return Err(Error::Setting(format!("{} {reason}", path.display())));
        }
        let lock = path.join(LOCK);
        let file = File::create(&lock).map_err(Error::io(&lock))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let reason = "another process is packing into it: wait for its end, or choose another folder";
                return Err(Error::Setting(format!("{}: {reason}", path.display())));
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!("{}: {error}: do not pack into the folder from two processes", lock.display());
            }
            Ok(()) => {}
        }
        match read_json::<Manifest>(&manifest)? {
            None => write_json(&manifest, &Manifest { job: job.clone(), shards: None })?,
            Some(there) => {
                if let Some(difference) = job.difference(&there.job) {
                    let way_out = "use the original options, or choose another folder";
                    return Err(Error::Setting(format!(
                        "{} was packed with other options ({difference}): {way_out}",
                        path.display()
                    )));
                }
            }
        }
        Ok(Self { path: path.to_owned(), job, lock: file })
    }

    /// The number of shards of the data set.
    pub fn ranges(&self) -> usize {
        self.job.samples.div_ceil(self.job.samples_per_shard)
    }

    /// The samples of a shard.
    pub fn range(&self, number: usize) -> Range<usize> {
        let start = number * self.job.samples_per_shard;
        start..start.saturating_add(self.job.samples_per_shard).min(self.job.samples)
    }

    /// The name of a filter of the job, by index.
    pub fn filter(&self, place: usize) -> String {
        self.job.filters.get(place).map_or("unknown", |filter| filter.name()).to_owned()
    }

    /// The file name of a shard.
    pub fn tar_name(&self, number: usize) -> String {
        format!("{}.tar", self.name(number))
    }

    /// The path of a shard.
    pub fn tar(&self, number: usize) -> PathBuf {
        self.path.join(self.tar_name(number))
    }

    /// Writes the record of a complete shard.
    pub fn record(&self, number: usize, record: &Record) -> Result<()> {
        write_json(&self.record_path(number), record)?;
        self.sync()
    }

    /// The shards to write: those without a record, and those that differ from their record in size or, with
    /// `verify`, in checksum.
    pub fn missing(&self, verify: bool, threads: usize) -> Result<Vec<usize>> {
        let all: Vec<usize> = (0..self.ranges()).collect();
        let missing = Mutex::new(Vec::new());
        each(&all, threads, |number| {
            // A record that cannot be read counts as missing.
            let record = read_json::<Record>(&self.record_path(number)).ok().flatten();
            if !record.is_some_and(|record| self.is_complete(number, &record.shard, verify)) {
                missing.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            }
            Ok(())
        })?;
        let mut missing = missing.into_inner().unwrap_or_else(PoisonError::into_inner);
        missing.sort_unstable();
        for &number in &missing {
            let record = self.record_path(number);
            if record.exists() {
                tracing::warn!("{} differs from its record: it is written again", self.tar(number).display());
                std::fs::remove_file(&record).map_err(Error::io(&record))?;
            }
        }
        Ok(missing)
    }

    fn is_complete(&self, number: usize, shard: &Shard, verify: bool) -> bool {
        let tar = self.tar(number);
        shard.file.is_none()
            || tar.metadata().is_ok_and(|tar| tar.len() == shard.bytes)
                && (!verify || sha256(&tar).is_ok_and(|sum| sum == shard.sha256))
    }

    /// The stored outcomes of a range, if there are any.
    pub fn outcomes(&self, number: usize) -> Option<Vec<Outcome>> {
        read_json(&self.outcomes_path(number)).ok().flatten()
    }

    /// Stores the outcomes of a range.
    pub fn keep_outcomes(&self, number: usize, outcomes: &[Outcome]) -> Result<()> {
        let folder = self.path.join(OUTCOMES);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        write_json(&self.outcomes_path(number), &outcomes)
    }

    /// Calls `each` with all bad samples of the existing records.
    pub fn bad_samples(&self, mut each: impl FnMut(BadSample) -> Result<()>) -> Result<()> {
        for number in 0..self.ranges() {
            let record = read_json::<Record>(&self.record_path(number))?;
            record.into_iter().flat_map(|record| record.bad_samples).try_for_each(&mut each)?;
        }
        Ok(())
    }

    /// Sums up all records, and writes the manifest and the bad samples. Returns the counts of all samples,
    /// the number of tars and the statistics of their contents.
    pub fn finish(&self, job: &Job) -> Result<(Shard, usize, Stats)> {
        let mut all = Shard::default();
        let mut stats = Stats::default();
        let mut shards = Vec::with_capacity(self.ranges());
        for number in 0..self.ranges() {
            let path = self.record_path(number);
            let gone =
                || Error::Setting(format!("{} was removed during the packing: pack again", path.display()));
            let record = read_json::<Record>(&path)?.ok_or_else(gone)?;
            all.add(&record.shard);
            stats.merge(&record.stats);
            shards.push(record.shard);
        }
        let tars = shards.iter().filter(|shard| shard.file.is_some()).count();
        let bad = self.path.join(BAD_SAMPLES);
        if all.bad.is_empty() {
            let _ = std::fs::remove_file(&bad); // of an earlier packing, if there was one
        } else {
            write_atomic(&bad, |file| {
                self.bad_samples(|sample| {
                    let line = serde_json::to_string(&sample).map_err(std::io::Error::from);
                    line.and_then(|line| writeln!(file, "{line}")).map_err(Error::io(&bad))
                })
            })?;
        }
        write_json(&self.path.join(MANIFEST), &Manifest { job: job.clone(), shards: Some(shards) })?;
        let _ = std::fs::remove_dir_all(self.path.join(OUTCOMES)); // exists only after a first pass
        self.sync()?;
        Ok((all, tars, stats))
    }

    /// The number with as many digits as that of the last shard, at least five, so that names sort by number.
    fn name(&self, number: usize) -> String {
        let width = self.ranges().saturating_sub(1).to_string().len().max(5);
        format!("{number:0width$}")
    }

    fn record_path(&self, number: usize) -> PathBuf {
        self.path.join(format!("{}.json", self.name(number)))
    }

    fn outcomes_path(&self, number: usize) -> PathBuf {
        self.path.join(OUTCOMES).join(format!("{}.json", self.name(number)))
    }

    /// Syncs renamed files to the disk.
    fn sync(&self) -> Result<()> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(Error::io(&self.path))
    }
}
