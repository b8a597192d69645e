//! The metadata of a folder of shards: `manifest.json`, and a record beside each shard.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use crate::tools::stats::Stats;
use crate::{BadSample, DatasetConfig, Error, Fault, Result};

/// The inputs of a packing. A folder can only be resumed with the same ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The config of the data set.
    pub data: DatasetConfig,
    /// The number of its samples, bad ones included.
    pub samples: usize,
    /// Samples of the data set per shard, before filtering.
    pub samples_per_shard: usize,
    /// The filters.
    pub filters: Vec<Filter>,
    /// The model of the CLIP score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether all images are decoded.
    pub check_images: bool,
}

/// `manifest.json`: a folder of shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The inputs.
    pub job: Job,
    /// The shards; `None` until all are complete.
    pub shards: Option<Vec<Shard>>,
}

/// A shard, and the counts of the samples of its range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shard {
    /// The file name of the tar; `None` where no sample of the range was kept.
    pub file: Option<String>,
    /// The number of samples in the tar.
    pub samples: usize,
    /// The size of the tar in bytes.
    pub bytes: u64,
    /// The SHA-256 of the tar in hexadecimal.
    pub sha256: String,
    /// The number of samples that could not be read, by fault.
    pub bad: BTreeMap<Fault, usize>,
    /// The number of dropped samples, by the name of the first filter that dropped them.
    pub filtered: BTreeMap<String, usize>,
}

/// The record of a shard, written when the shard is complete.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub shard: Shard,
    pub stats: Stats,
    pub bad_samples: Vec<BadSample>,
}

impl Shard {
    /// Adds the counts of another shard.
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
    /// The first difference to the job of a folder, for messages.
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
        Some(format!("{what}: {there} before, {here} now"))
    }
}

/// Reads a JSON file; `None` where it does not exist.
///
/// # Errors
/// It cannot be read or has other contents.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::io(path))?,
    };
    let wrong = |error| Error::Setting(format!("{}: {error}: remove it to start again", path.display()));
    serde_json::from_slice(&text).map(Some).map_err(wrong)
}

/// Writes a JSON file atomically.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomic(path, |file| {
        let json = serde_json::to_vec(value).map_err(std::io::Error::from);
        json.and_then(|json| file.write_all(&json)).map_err(Error::io(path))
    })
}

/// Writes a file atomically: under a temporary name, synced, then renamed.
pub(super) fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
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
