//! The Parquet files of a config, and their footers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};

use super::columns::Columns;
use super::{ParquetConfig, corrupt, guarded};
use crate::file_kind::{HEAD_BYTES, refuse_git_lfs_pointer};
use crate::sources::broken::Broken;
use crate::sources::splits::counted;
use crate::sources::walk::{Counted, is_hidden};
use crate::{Error, Fault, Result};

/// A file with its footer.
pub(super) struct ParquetFile {
    pub(super) path: PathBuf,
    pub(super) footer: Arc<ParquetMetaData>,
    pub(super) columns: Columns,
    /// The rows of each row group.
    pub(super) group_rows: Vec<u32>,
}

impl ParquetFile {
    /// # Errors
    /// Not a Parquet file, a truncated file, a column that is missing or of another type.
    pub(super) fn open(path: &Path, config: &ParquetConfig) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let size = file.metadata().map_err(Error::io(path))?.len();
        let mut head = [0; HEAD_BYTES];
        let read = file.read_at(&mut head, 0).map_err(Error::io(path))?;
        refuse_git_lfs_pointer(path, &head[..read])?;
        let place = path.display();
        let located = |broken: Broken| Error::bad(broken.fault, format!("{place}: {}", broken.reason));
        let footer = guarded(|| read_footer(&file)).map_err(|broken| {
            located(Broken::new(
                broken.fault,
                format!("not a complete Parquet file ({}): download it again", broken.reason),
            ))
        })?;
        let columns = Columns::find(path, &footer, config)?;
        let group_rows = guarded(|| check_groups(&footer, &columns, size)).map_err(located)?;
        Ok(Self { path: path.to_owned(), footer: Arc::new(footer), columns, group_rows })
    }

    /// The memory of a row group: the uncompressed size of the columns that are read.
    pub(super) fn group_bytes(&self, group: usize) -> u64 {
        // A corrupt footer must not overflow the sum.
        const MOST: i64 = 1 << 40;
        let group = self.footer.row_group(group);
        self.columns.all().map(|leaf| group.column(leaf).uncompressed_size().clamp(0, MOST) as u64).sum()
    }
}

fn read_footer(file: &File) -> std::result::Result<ParquetMetaData, Broken> {
    // The minimum and maximum of a column of images are two images.
    let options = ParquetMetaDataOptions::new().with_column_stats_policy(ParquetStatisticsPolicy::SkipAll);
    ParquetMetaDataReader::new().with_metadata_options(Some(options)).parse_and_finish(file).map_err(corrupt)
}

/// The number of rows of each row group.
///
/// # Errors
/// The footer contradicts itself or the size of the file.
fn check_groups(
    footer: &ParquetMetaData,
    columns: &Columns,
    size: u64,
) -> std::result::Result<Vec<u32>, Broken> {
    let wrong = |group: usize, what: String| {
        Broken::new(Fault::Shard, format!("corrupt footer: row group {group} {what}"))
    };
    let rows = footer.row_groups().iter().enumerate().map(|(number, group)| {
        let rows = u32::try_from(group.num_rows())
            .map_err(|_| wrong(number, format!("has {} rows", group.num_rows())))?;
        for leaf in columns.all() {
            let column = group.column(leaf);
            let (start, length) = column.byte_range();
            if start.saturating_add(length) > size {
                return Err(wrong(
                    number,
                    format!("ends at byte {} of {size}", start.saturating_add(length)),
                ));
            }
            if column.column_descr().max_rep_level() == 0 && column.num_values() != i64::from(rows) {
                return Err(wrong(number, format!("has {rows} rows, {} with a value", column.num_values())));
            }
        }
        Ok(rows)
    });
    rows.collect()
}

/// The files of the config; those of a folder sorted by name.
pub(super) fn find(config: &ParquetConfig) -> Result<Vec<PathBuf>> {
    for path in &config.path {
        fs::metadata(path).map_err(Error::io(path))?;
    }
    match (&config.path[..], &config.split) {
        ([folder], split) if folder.is_dir() => in_folder(folder, split.as_deref()),
        (_, Some(split)) => Err(Error::Setting(format!(
            "split = \"{split}\": it selects files of one folder, but `path` lists files: remove it"
        ))),
        (files, None) => match files.iter().find(|path| path.is_dir()) {
            None => Ok(files.to_vec()),
            Some(folder) => Err(Error::Setting(format!(
                "{}: a folder in a list of Parquet files: list its files, or only the folder",
                folder.display()
            ))),
        },
    }
}

fn in_folder(folder: &Path, split: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut found = parquet_files(folder)?;
    let data = folder.join("data");
    if found.is_empty() && data.is_dir() {
        found = parquet_files(&data)?;
    }
    found.sort();
    if found.is_empty() {
        let hint = "the folder and its subfolder `data` have no .parquet file".into();
        return Err(Error::Empty { name: folder.display().to_string(), hint });
    }
    let mut present: BTreeMap<&str, usize> = BTreeMap::new();
    for path in &found {
        *present.entry(split_of(path)).or_default() += 1;
    }
    match split {
        Some(split) if !present.contains_key(split) => Err(Error::Setting(format!(
            "{}: no file of split `{split}`; the folder has files of {}: set `split` to one of these",
            folder.display(),
            counted(&present)
        ))),
        None if present.len() > 1 => Err(Error::Setting(format!(
            "{}: the folder has files of {}: set `split` to one of these, or list the files in `path`",
            folder.display(),
            counted(&present)
        ))),
        _ => Ok(found
            .iter()
            .filter(|path| split.is_none_or(|split| split_of(path) == split))
            .cloned()
            .collect()),
    }
}

fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut hidden = Counted::default();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        match path.file_name() {
            _ if path.extension().is_none_or(|extension| extension != "parquet") => {}
            Some(name) if is_hidden(name) => hidden.add(&path),
            _ => found.push(path),
        }
    }
    hidden.report_hidden(folder);
    Ok(found)
}

/// `train` for `train-00000-of-00005.parquet`, also with a fingerprint after it, and for `train.parquet`;
/// empty for `0000.parquet`, which has only a number.
fn split_of(path: &Path) -> &str {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let number =
        |at: &usize| stem[*at..].trim_start_matches('-').starts_with(|digit: char| digit.is_ascii_digit());
    let end = std::iter::once(0).chain(stem.match_indices('-').map(|(at, _)| at)).find(number);
    &stem[..end.unwrap_or(stem.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_the_start_of_the_name() {
        let names = [
            ("train-00000-of-00005.parquet", "train"),
            ("train-00000-of-00001-b42a775f407cee45.parquet", "train"),
            ("test.parquet", "test"),
            ("test-dev-00001-of-00002.parquet", "test-dev"),
            ("0007.parquet", ""),
        ];
        for (name, split) in names {
            assert_eq!(split_of(Path::new(name)), split);
        }
    }

    #[test]
    fn hidden_files_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["train-00000-of-00001.parquet", "._train-00000-of-00001.parquet", ".ipynb_checkpoints.parquet"]
        {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        assert_eq!(
            in_folder(folder.path(), None).unwrap(),
            [folder.path().join("train-00000-of-00001.parquet")]
        );
    }
}
