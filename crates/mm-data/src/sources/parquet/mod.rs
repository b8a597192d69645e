//! Parquet files with the images inside, as Hugging Face `datasets` writes them.
//!
//! [`files`] finds the files, [`columns`] the columns in a file's footer, [`group`] reads a row group, and
//! [`cache`] keeps those that were read last.

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
use crate::error::said_by;
use crate::sources::broken::Broken;
use crate::sources::listed::root_beside;
use crate::{Dataset, Error, Fault, Result, Sample};

/// Parquet files with a column of images: a struct of `bytes` and `path`, as `datasets` stores its `Image`,
/// or the bytes alone, or paths alone.
///
/// A sample is a row. Rows of a row group are read together: the loader's shuffling keeps them near each
/// other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetConfig {
    /// A file, a list of files, or a folder with `train-00000-of-00005.parquet` and so on, in it or in its
    /// `data`.
    #[serde(deserialize_with = "one_or_many")]
    pub path: Vec<PathBuf>,
    /// The split of a folder, which begins the names of its files; needed where the folder has more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The column with the image.
    #[serde(default = "image")]
    pub image_column: String,
    /// The column with the caption or a list of captions, or several such columns. The first that is not
    /// empty in a row is its canonical caption. A field of a struct is named with a dot: `sentences.raw`. An
    /// empty list, where there is a label column, asks for none.
    #[serde(default = "caption", deserialize_with = "one_or_many")]
    pub caption_column: Vec<String>,
    /// The column with the class: text, or a number, which becomes a name where the file has the names of a
    /// `ClassLabel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// The folder that the path of an image without bytes starts from; by default that of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
    /// How many bytes of row groups to keep in memory; the one in use is kept, however large.
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
    /// The row groups of all files, one behind the other.
    places: Vec<Place>,
    len: usize,
    cache: Cache,
    cache_bytes: u64,
}

/// Where a row group is.
struct Place {
    file: usize,
    /// Its number in the file.
    group: usize,
    /// The index of the sample that is its first row.
    first: usize,
    /// The number of that row in the file.
    row: usize,
    rows: u32,
}

impl ParquetDataset {
    /// Opens the files: reads their footers.
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
                0 => "`path` names no file".into(),
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

    /// The rows of a row group, read now or kept from before.
    fn group(&self, place: usize) -> cache::Kept {
        let Place { file, group, rows, .. } = self.places[place];
        let file = &self.files[file];
        self.cache.get(place, file.group_bytes(group), || {
            sheltered(|| Group::read(file, group, rows as usize))
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
        // One is spared for the group that the next window begins with.
        Some((self.cache_bytes / mean).saturating_sub(1).max(1) as usize)
    }
}

/// Runs what calls the parquet crate, which panics on some files that are corrupt.
fn sheltered<T>(read: impl FnOnce() -> std::result::Result<T, Broken>) -> std::result::Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said = said_by(&*panic).unwrap_or("no reason given");
        Err(Broken::new(Fault::Panic, format!("corrupt: the decoder gave up: {said}")))
    })
}

/// What the parquet crate says of a file that is broken.
fn corrupt(error: ParquetError) -> Broken {
    Broken::new(Fault::Shard, error.to_string())
}

#[cfg(test)]
mod tests;
