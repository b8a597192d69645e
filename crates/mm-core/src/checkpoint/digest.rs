//! Digests that tell one model from another.

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The extensions of configs, vocabularies and weights.
const EXTENSIONS: [&str; 6] = ["json", "txt", "model", "safetensors", "bin", "pt"];

/// The SHA-256 in hexadecimal of the configs, vocabularies and weights in `folder`, with their names: two
/// folders with one digest hold the same model.
///
/// # Errors
/// A file cannot be read.
pub fn folder_digest(folder: &Path) -> Result<String> {
    let read = |path: &Path, source| Error::io("read", path, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| read(folder, error))? {
        let path = entry.map_err(|error| read(folder, error))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_file() && EXTENSIONS.contains(&extension) {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        hash.update(name.as_bytes());
        let mut file = File::open(&path).map_err(|error| read(&path, error))?;
        let length = io::copy(&mut file, &mut hash).map_err(|error| read(&path, error))?;
        hash.update(length.to_le_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// `bytes` in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_follows_names_and_contents_of_model_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let first = folder_digest(folder.path()).unwrap();
        assert_eq!(first.len(), 64);
        write("README.md", "words");
        assert_eq!(folder_digest(folder.path()).unwrap(), first);
        write("model.safetensors", "other weights");
        assert_ne!(folder_digest(folder.path()).unwrap(), first);
        assert!(folder_digest(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
