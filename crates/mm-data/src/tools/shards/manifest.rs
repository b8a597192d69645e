//! What a folder of shards tells of itself: `manifest.json`, and a record beside each shard.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use crate::tools::stats::Stats;
use crate::{BadSample, DatasetConfig, Error, Fault, Result};

/// What was asked for. A folder is gone on with only by the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The data set, as a config has it.
    pub data: DatasetConfig,
    /// Its samples, bad ones included.
    pub samples: usize,
    /// Samples of the data set, kept or not, to a shard.
    pub samples_per_shard: usize,
    /// What is kept.
    pub filters: Vec<Filter>,
    /// The model of the CLIP score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether every image was decoded.
    pub check_images: bool,
}

/// `manifest.json`: a folder of shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// What was asked for.
    pub job: Job,
    /// What became of it; none before all shards are there.
    pub shards: Option<Vec<Shard>>,
}

/// What became of the samples of one shard's range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shard {
    /// The tar's name in the folder; none where no sample of the range was kept.
    pub file: Option<String>,
    /// Samples in it.
    pub samples: usize,
    /// Bytes of the tar.
    pub bytes: u64,
    /// The tar's SHA-256 in hexadecimal.
    pub sha256: String,
    /// Samples that could not be read.
    pub bad: BTreeMap<Fault, usize>,
    /// Samples that a filter dropped, by its name: the first that did.
    pub filtered: BTreeMap<String, usize>,
}

/// The record of a shard, in a file of its own as soon as the shard is whole.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub shard: Shard,
    pub stats: Stats,
    pub bad_samples: Vec<BadSample>,
}

impl Shard {
    /// Counts another shard's samples and drops in.
    pub(super) fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.bytes += other.bytes;
        other.bad.iter().for_each(|(fault, count)| *self.bad.entry(*fault).or_default() += count);
        other
            .filtered
            .iter()
            .for_each(|(name, count)| *self.filtered.entry(name.clone()).or_default() += count);
    }
}

impl Job {
    /// What differs in the job that a folder was begun with, in words.
    pub(super) fn difference(&self, there: &Self) -> Option<String> {
        let list = |filters: &[Filter]| match filters {
            [] => "none".to_owned(),
            filters => filters.iter().map(Filter::to_string).collect::<Vec<_>>().join(", "),
        };
        let model = |job: &Self| job.model.clone().unwrap_or_else(|| "none".into());
        let data = |job: &Self| serde_json::to_string(&job.data).unwrap_or_default();
        let all = [
            ("data", data(there), data(self)),
            ("the number of samples", there.samples.to_string(), self.samples.to_string()),
            ("samples per shard", there.samples_per_shard.to_string(), self.samples_per_shard.to_string()),
            ("filters", list(&there.filters), list(&self.filters)),
            ("model", model(there), model(self)),
            ("checking of images", there.check_images.to_string(), self.check_images.to_string()),
        ];
        let (what, there, here) = all.into_iter().find(|(_, there, here)| there != here)?;
        Some(format!("{what}: {there} there, {here} now"))
    }
}

/// The JSON in a file; none where the file is not there.
///
/// Errors: it cannot be read, or is something else.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::io(path))?,
    };
    let wrong = |error| Error::Setting(format!("{}: {error}: remove it to begin anew", path.display()));
    serde_json::from_slice(&text).map(Some).map_err(wrong)
}

/// Writes JSON under another name and renames it.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_whole(path, |file| {
        let json = serde_json::to_vec(value).map_err(std::io::Error::from);
        json.and_then(|json| file.write_all(&json)).map_err(Error::io(path))
    })
}

/// A file that appears when `write` is done and all is on the disk.
pub(super) fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let part = part_of(path);
    let mut file = BufWriter::new(File::create(&part).map_err(Error::io(&part))?);
    write(&mut file)?;
    let synced =
        file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    synced.and_then(|()| std::fs::rename(&part, path)).map_err(Error::io(path))
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".part");
    name.into()
}
