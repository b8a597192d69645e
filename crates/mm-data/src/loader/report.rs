//! Reports of bad samples: a log line and a line of a file for each, a tally at the end of an epoch, and an
//! error when there are too many.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::position::{Position, Tally};
use crate::{BadSample, Error, Result};

/// The number of warnings that are logged one by one: some data sets have one on each sample.
const WARNINGS: usize = 10;

/// The report of one loader.
pub(super) struct Report {
    name: String,
    bad: Vec<BadSample>,
    /// For each data set of the mix, its name and its tally since the start of the epoch.
    epoch: Vec<(String, Tally)>,
    /// The number of warnings so far.
    warned: usize,
    log: Option<(PathBuf, File, HashSet<u64>)>,
}

impl Report {
    /// A report for the data set `name` that mixes these data sets.
    pub fn new(name: String, sources: impl Iterator<Item = String>) -> Self {
        let epoch = sources.map(|source| (source, Tally::default())).collect();
        Self { name, bad: Vec::new(), epoch, warned: 0, log: None }
    }

    pub fn log_to(&mut self, path: &Path) -> Result<()> {
        let file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(Error::io(path))?;
        let lines = BufReader::new(&file).lines().map_while(std::io::Result::ok);
        let known =
            lines.filter_map(|line| serde_json::from_str(&line).ok()).map(|bad| identity(&bad)).collect();
        self.log = Some((path.to_owned(), file, known));
        Ok(())
    }

    pub fn bad_samples(&self) -> &[BadSample] {
        &self.bad
    }

    /// Counts a place of a data set. `bad` are the bad samples tried there, its own first; empty if it was
    /// read.
    ///
    /// # Errors
    /// More than `allowed` different bad samples.
    pub fn count(
        &mut self,
        part: usize,
        position: &mut Position,
        bad: Vec<BadSample>,
        allowed: usize,
    ) -> Result<()> {
        for tally in [&mut self.epoch[part].1, &mut position.tally] {
            match bad.first() {
                Some(own) => *tally.skipped.entry(own.fault).or_default() += 1,
                None => tally.read += 1,
            }
        }
        for bad in bad {
            if position.bad.insert(identity(&bad)) {
                self.log(bad);
            }
        }
        let count = position.bad.len();
        if count <= allowed {
            return Ok(());
        }
        let first = self.bad.iter().take(10).map(|bad| format!("{}: {}", bad.key, bad.reason)).collect();
        Err(Error::TooManyBad { name: self.name.clone(), count, allowed, first })
    }

    /// Counts and logs the warning of a sample that was read.
    pub fn warn(&mut self, part: usize, position: &mut Position, key: &str, warning: &str) {
        let (source, tally) = &mut self.epoch[part];
        tally.warned += 1;
        position.tally.warned += 1;
        self.warned += 1;
        if self.warned <= WARNINGS {
            tracing::warn!("{source}: {key} read with a warning: {warning}");
        }
        if self.warned == WARNINGS {
            tracing::warn!("further warnings are only counted, in the tally at the end of the epoch");
        }
    }

    fn log(&mut self, bad: BadSample) {
        tracing::warn!("skipped a bad sample of {}: {}: {}", bad.source, bad.key, bad.reason);
        if let Some((path, file, known)) = &mut self.log
            && known.insert(identity(&bad))
        {
            let line = serde_json::to_string(&bad).expect("a bad sample can be written as JSON") + "\n";
            if let Err(error) = file.write_all(line.as_bytes()) {
                // A run does not stop because its file of bad samples cannot be written.
                tracing::warn!("{}: {error}; bad samples are only logged here", path.display());
                self.log = None;
            }
        }
        self.bad.push(bad);
    }

    /// Logs the tally of an epoch for each data set, as this process counted it since its start: a warning if
    /// samples were skipped.
    pub fn end_epoch(&mut self, epoch: u64) {
        for (source, tally) in &mut self.epoch {
            let tally = std::mem::take(tally);
            if tally.skipped.is_empty() && tally.warned == 0 {
                tracing::debug!("epoch {epoch}: {source}: {tally}");
            } else {
                tracing::warn!("epoch {epoch}: {source}: {tally}");
            }
        }
    }
}

/// A hash (FNV-1a) of data set and key, so that a position stays small with long keys.
fn identity(bad: &BadSample) -> u64 {
    let bytes = bad.source.bytes().chain([0]).chain(bad.key.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
