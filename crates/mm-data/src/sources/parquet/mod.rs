//! Parquet files with images inside, as Hugging Face `datasets` writes them.
//!
//! [`files`] finds the files, [`columns`] finds the columns in the footer of a file, [`group`] reads a row
//! group, and [`cache`] keeps recently used row groups.

mod cache;
mod columns;
mod files;
mod group;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};

use self::cache::Cache;
use self::files::ParquetFile;
use self::group::Group;
use crate::config::one_or_many;
use crate::error::panic_message;
use crate::sources::broken::Broken;
use crate::sources::listed::root_beside;
use crate::{Dataset, Error, Fault, Result, Sample};

/// Parquet files with a column of images: a struct of `bytes` and `path`, as `datasets` stores its `Image`,
/// or only bytes, or only paths.
///
/// A sample is a row. A row group is read as a whole; the loader shuffles within a window of row groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetConfig {
    /// A file, a list of files, or a folder with `train-00000-of-00005.parquet` and so on, in it or in its
    /// subfolder `data`.
    #[serde(deserialize_with = "one_or_many")]
    pub path: Vec<PathBuf>,
    /// The split of a folder: the start of the file names. Required where the folder has more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The column with the image.
    #[serde(default = "image")]
    pub image_column: String,
    /// The column with a caption or a list of captions, or several such columns. The first caption of a row
    /// that is not empty is its canonical one. `sentences.raw` is a field of a struct. With a label column,
    /// an empty list reads no captions.
    #[serde(default = "caption", deserialize_with = "one_or_many")]
    pub caption_column: Vec<String>,
    /// The column with the class: text, or a number, which is replaced by its name where the file has a
    /// `ClassLabel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// The folder that paths of images without bytes are relative to; by default the folder of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// The size of the cache of row groups in bytes. The row group in use is always kept.
    #[serde(default = "cache_bytes")]
    pub cache_bytes: u64,
}

fn image() -> String {
    "image".into()
}

fn caption() -> Vec<String> {
    vec!["caption".into()]
}

fn cache_bytes() -> u64 {
    512 << 20
}

/// The files as a [`Dataset`].
pub(crate) struct ParquetDataset {
    name: String,
    images_root: Option<PathBuf>,
    files: Vec<ParquetFile>,
    /// The row groups of all files, in order.
    places: Vec<Place>,
    len: usize,
    cache: Cache,
    cache_bytes: u64,
}

/// The place of a row group.
struct Place {
    file: usize,
    /// The number of the row group in the file.
    group: usize,
    /// The index of the sample of its first row.
    first: usize,
    /// The number of its first row in the file.
    row: usize,
    rows: u32,
}

impl ParquetDataset {
    /// Opens the files by their footers.
    ///
    /// # Errors
    /// A file or column is missing or invalid, or there are no rows.
    pub(crate) fn open(config: &ParquetConfig) -> Result<Self> {
        if config.caption_column.is_empty() && config.label_column.is_none() {
            return Err(Error::Setting(
                "caption_column = []: name at least one column, or a label_column".into(),
            ));
        }
        let name = config.path.first().map(|path| path.display().to_string()).unwrap_or_default();
        let paths = files::find(config)?;
        let files = paths.iter().map(|path| ParquetFile::open(path, config)).collect::<Result<Vec<_>>>()?;
        let mut places = Vec::new();
        let mut len = 0;
        for (file, opened) in files.iter().enumerate() {
            let mut row = 0;
            for (group, &rows) in opened.group_rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
                places.push(Place { file, group, first: len, row, rows });
                row += rows as usize;
                len += rows as usize;
            }
        }
        if len == 0 {
            let hint = match files.len() {
                0 => "`path` is empty".into(),
                count => format!("{count} files have no rows"),
            };
            return Err(Error::Empty { name, hint });
        }
        Ok(Self {
            name,
            images_root: config.images_root.clone(),
            files,
            places,
            len,
            cache: Cache::new(config.cache_bytes),
            cache_bytes: config.cache_bytes,
        })
    }

    /// A row group, from the cache or read now.
    fn group(&self, place: usize) -> cache::Kept {
        let Place { file, group, rows, .. } = self.places[place];
        let file = &self.files[file];
        self.cache.get(place, file.group_bytes(group), || {
            guarded(|| Group::read(file, group, rows as usize))
                .map_err(|broken| Broken::new(broken.fault, format!("row group {group}: {}", broken.reason)))
        })
    }
}

impl Dataset for ParquetDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let number = self.places.partition_point(|place| place.first <= index) - 1;
        let place = &self.places[number];
        let file = &self.files[place.file];
        let name = file.path.display().to_string();
        let group = self.group(number);
        let group = group.as_ref().as_ref().map_err(|broken| broken.error(&name))?;
        let row = index - place.first;
        let key = format!("{name}:{}", place.row + row);
        let root = root_beside(&file.path, self.images_root.as_ref());
        group.sample(row, &key, &root, &file.columns).map_err(|broken| broken.error(&key))
    }

    fn blocks(&self) -> Option<Vec<u32>> {
        Some(self.places.iter().map(|place| place.rows).collect())
    }

    fn blocks_at_once(&self) -> Option<usize> {
        let bytes: u64 =
            self.places.iter().map(|place| self.files[place.file].group_bytes(place.group)).sum();
        let mean = (bytes / self.places.len().max(1) as u64).max(1);
        // One less, for the first row group of the next window.
        Some((self.cache_bytes / mean).saturating_sub(1).max(1) as usize)
    }
}

/// Calls the parquet crate, which panics on some corrupt files.
fn guarded<T>(read: impl FnOnce() -> std::result::Result<T, Broken>) -> std::result::Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let message = panic_message(&*panic).unwrap_or("no message");
        Err(Broken::new(Fault::Panic, format!("corrupt: the decoder panicked: {message}")))
    })
}

/// An error of the parquet crate about a broken file.
fn corrupt(error: ParquetError) -> Broken {
    Broken::new(Fault::Shard, error.to_string())
}

#[cfg(test)]
mod tests;
