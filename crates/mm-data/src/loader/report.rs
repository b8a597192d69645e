//! What is told of bad samples: a log line each, a file, a tally at the end of an epoch, and an end when they
//! are too many.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::position::{Position, Tally};
use crate::{BadSample, Error, Result};

/// Samples with a warning that are named one by one: a set that somebody else wrote may have one on each.
const WARNINGS: usize = 10;

/// The account of one loader.
pub(super) struct Report {
    name: String,
    bad: Vec<BadSample>,
    /// Of each source of the mix, what became of its samples since the last epoch began.
    epoch: Vec<(String, Tally)>,
    /// Warnings that were told.
    warned: usize,
    log: Option<(PathBuf, File, HashSet<u64>)>,
}

impl Report {
    /// For the set `name` with these sources.
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

    /// Counts what became of a place of a source: the bad samples met there, its own first; none: it was
    /// read.
    ///
    /// Errors: too many different ones are bad.
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
                self.tell(bad);
            }
        }
        let count = position.bad.len();
        if count <= allowed {
            return Ok(());
        }
        let first = self.bad.iter().take(10).map(|bad| format!("{}: {}", bad.key, bad.reason)).collect();
        Err(Error::TooManyBad { name: self.name.clone(), count, allowed, first })
    }

    /// Counts a sample that was read, but for what its warning says.
    pub fn warn(&mut self, part: usize, position: &mut Position, key: &str, warning: &str) {
        let (source, tally) = &mut self.epoch[part];
        tally.warned += 1;
        position.tally.warned += 1;
        self.warned += 1;
        if self.warned <= WARNINGS {
            tracing::warn!("{source}: {key} is read without a part of it: {warning}");
        }
        if self.warned == WARNINGS {
            tracing::warn!("further warnings of this kind are counted, and told of at the end of the epoch");
        }
    }

    fn tell(&mut self, bad: BadSample) {
        tracing::warn!("a bad sample of {} is skipped: {}: {}", bad.source, bad.key, bad.reason);
        if let Some((path, file, known)) = &mut self.log
            && known.insert(identity(&bad))
        {
            let line = serde_json::to_string(&bad).expect("a bad sample is texts") + "\n";
            if let Err(error) = file.write_all(line.as_bytes()) {
                // What is known of one bad sample is no reason to end a run.
                tracing::warn!("{}: {error}; bad samples are named in this log alone", path.display());
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

/// A hash of what a bad sample is called (FNV-1a), so that a position stays small however long keys are.
fn identity(bad: &BadSample) -> u64 {
    let bytes = bad.source.bytes().chain([0]).chain(bad.key.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
