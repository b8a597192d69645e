//! What a cache was made with.

use crate::{Error, Result};
use mm_core::checkpoint::{folder_digest, hex};
use mm_core::{read_json, write_json};
use mm_data::Dataset;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The file of a cache that says what it was made with.
const FILE: &str = "cache.json";

/// The version of the files.
const FORMAT: &str = "1";

/// What a cache was made with, by name: texts that must be the same wherever it is used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// Of the folders of `parts`, those that are there, the data set, and the settings `images` that pictures
    /// are prepared by.
    ///
    /// # Errors
    /// A file of a part cannot be read.
    pub(super) fn new(
        parts: &[(&'static str, PathBuf)],
        dataset: &dyn Dataset,
        images: String,
    ) -> Result<Self> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for (part, folder) in parts.iter().filter(|(_, folder)| folder.is_dir()) {
            all.insert((*part).to_owned(), folder_digest(folder)?);
        }
        all.insert("format".to_owned(), FORMAT.to_owned());
        all.insert("data".to_owned(), format!("{} ({} samples)", dataset.name(), dataset.len()));
        all.insert("images".to_owned(), images);
        Ok(Self(all))
    }

    /// One text for all of it, which each shard carries.
    pub(super) fn digest(&self) -> String {
        let text: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        hex(&Sha256::digest(text.join("\n")))
    }

    /// Writes the file of a new cache in `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&folder.join(FILE), &self.0)?)
    }

    /// Whether `folder` holds a cache, which then is of this fingerprint.
    ///
    /// # Errors
    /// The cache was made with something else, which the message names, or the folder has other files.
    pub(super) fn is_of(&self, folder: &Path) -> Result<bool> {
        let file = folder.join(FILE);
        if !file.exists() {
            let is_empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
            return match is_empty {
                true => Ok(false),
                false => {
                    let problem = format!("has files but no {FILE}: name an empty folder, or a new one");
                    Err(Error::folder(folder, problem))
                }
            };
        }
        let found: BTreeMap<String, String> = read_json(&file)?;
        let names = self.0.keys().chain(found.keys());
        let shown = |value: Option<&String>| value.map_or("none".to_owned(), String::to_owned);
        match names.into_iter().find(|name| self.0.get(*name) != found.get(*name)) {
            None => Ok(true),
            Some(name) => Err(Error::folder(
                folder,
                format!(
                    "this cache was made with another `{name}`: {}, where the run has {}; remove the folder, \
                     or set `cache.folder` to another one",
                    shown(found.get(name)),
                    shown(self.0.get(name))
                ),
            )),
        }
    }
}
