//! WebDataset: tars of samples, as the Python library of that name and img2dataset write them.
//!
//! A sample is the adjacent members of one key: `000017.jpg`, `000017.txt`, `000017.json`. Plain local tars
//! are indexed when they are first read and are then accessed by index: the order of a run depends on neither
//! processes nor threads, and a resumed run starts with the very next sample. Commands, standard input and
//! compressed tars are streams.

mod dataset;
mod groups;
mod index;
mod json_member;
mod members;
mod names;
mod stream;
mod walk;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::one_or_many;
use crate::{Dataset, Error, Result};
use dataset::TarDataset;
pub(crate) use members::{Member, members_of};
use names::Shard;
use stream::TarStream;

/// A set of shards. In the config:
///
/// ```
/// let config: mm_data::DatasetConfig = toml::from_str(r#"
///     kind = "webdataset"
///     shards = ["laion/{00000..00999}.tar", "more/*.tar"]
/// "#)?;
/// assert!(config.open().is_err()); // no such files here
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebDatasetConfig {
    /// The shards, one pattern or several: a path with braces or wildcards (`a/{000..099}.tar`, `a/*.tar`), a
    /// `.txt` file with one pattern a line, `pipe:` with a shell command, or `-` for standard input.
    #[serde(deserialize_with = "one_or_many")]
    pub shards: Vec<String>,
    /// The field of `.json` members with a caption or a list of captions.
    #[serde(default = "caption")]
    pub caption_field: String,
    /// The folder for the index files of plain tars; by default each is written beside its tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_dir: Option<PathBuf>,
    /// The number of samples in an epoch of a stream, whose length is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// The number of samples in the shuffle buffer of a stream.
    #[serde(default = "shuffle_buffer")]
    pub shuffle_buffer: usize,
    /// Whether plain tars are read as a stream, too.
    #[serde(default)]
    pub streamed: bool,
}

fn caption() -> String {
    "caption".into()
}

fn shuffle_buffer() -> usize {
    1000
}

impl WebDatasetConfig {
    /// Finds the shards and indexes new ones.
    ///
    /// # Errors
    /// No shard is listed or can be read, a stream without `samples`, `samples` without a stream.
    pub(crate) fn open(&self) -> Result<Box<dyn Dataset>> {
        let shards = names::shards(&self.shards)?;
        let name = self.shards.join(", ");
        if shards.is_empty() {
            return Err(Error::Empty { name, hint: "`shards` is empty".into() });
        }
        let stdin = shards.iter().filter(|shard| **shard == Shard::Stdin).count();
        if stdin > 1 || (stdin == 1 && shards.len() > 1) {
            let reason = "standard input can be read only once, and not with other shards";
            return Err(Error::Setting(format!("`{name}`: {reason}")));
        }
        if !self.streamed && shards.iter().all(Shard::is_plain_file) {
            if self.samples.is_some() {
                let reason =
                    "samples is for streams only; plain tars are counted: remove it, or set streamed = true";
                return Err(Error::Setting(format!("`{name}`: {reason}")));
            }
            let path = |shard| match shard {
                Shard::File(path) => Some(path),
                Shard::Pipe(_) | Shard::Stdin => None,
            };
            let paths = shards.into_iter().filter_map(path).collect();
            return Ok(Box::new(TarDataset::open(
                name,
                paths,
                &self.caption_field,
                self.index_dir.as_deref(),
            )?));
        }
        let Some(samples) = self.samples.filter(|&samples| samples > 0) else {
            let reason = "a stream (a command, standard input, a compressed tar or streamed = true) has no \
                          known length: set samples = N, the number of samples in an epoch";
            return Err(Error::Setting(format!("`{name}`: {reason}")));
        };
        Ok(Box::new(TarStream {
            name,
            shards,
            samples,
            buffer: self.shuffle_buffer,
            caption_field: self.caption_field.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    /// The bytes of a tar with these files.
    pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }
}
