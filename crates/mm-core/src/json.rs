//! JSON files.

use crate::checkpoint::{refuse_lfs_pointer, write_atomically};
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Reads the JSON in `file`.
///
/// # Errors
/// The file cannot be read, is a Git LFS pointer, or is not JSON of the fields of `T`.
pub fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = std::fs::read(file).map_err(|source| Error::io("read", file, source))?;
    refuse_lfs_pointer(&bytes)
        .and_then(|()| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
        .map_err(|problem| Error::File { path: file.to_owned(), problem })
}

/// Writes `value` as indented JSON to `file`, through a temporary file that is synced and renamed.
///
/// # Errors
/// The file cannot be written; the previous content is then untouched.
pub fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Error::File { path: file.to_owned(), problem: error.to_string() })?;
    write_atomically(file, |partial| {
        std::fs::write(partial, json + "\n").map_err(|source| Error::io("write", file, source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_back_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        write_json(&file, &serde_json::json!({ "width": 8 })).unwrap();
        assert_eq!(read_json::<serde_json::Value>(&file).unwrap()["width"], 8);
        let message = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_json::<serde_json::Value>(&file).unwrap_err().to_string()
        };
        assert!(message("{").starts_with(&format!("{}: EOF while parsing", file.display())));
        assert!(message("version https://git-lfs.github.com/spec/v1\n").contains("is a Git LFS pointer"));
    }
}
