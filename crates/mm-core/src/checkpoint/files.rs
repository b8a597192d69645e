//! The files of weights in a folder.

use super::pickle::{conversion, pickle};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The variants in the file names of Hugging Face's libraries, the most precise first.
const VARIANTS: [&str; 3] = ["fp32", "bf16", "fp16"];

/// `model.safetensors.index.json`: the shard of each tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct ShardIndex {
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Parses an index.
    ///
    /// # Errors
    /// It is not an index, or a shard is not the plain name of a file beside it, which would reach outside of
    /// the checkpoint.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        refuse_lfs_pointer(json)?;
        let index: Self =
            serde_json::from_slice(json).map_err(|error| format!("not an index of shards: {error}"))?;
        let is_beside = |shard: &str| {
            let mut parts = Path::new(shard).components();
            parts.next().is_some_and(|part| part == Component::Normal(shard.as_ref()))
                && parts.next().is_none()
        };
        match index.weight_map.values().find(|shard| !is_beside(shard)) {
            Some(shard) => Err(format!("{shard:?} is not the name of a file beside it")),
            None => Ok(index),
        }
    }

    /// The distinct shards.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// The names of the files directly in `folder`, without broken links.
pub(crate) fn file_names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The location of the weights `stem` of a folder.
pub(super) enum Found {
    /// One file.
    File(PathBuf),
    /// The shards of this index.
    Sharded(PathBuf),
}

/// The weights `stem` of `folder`: `STEM.safetensors`, the index of its shards, or either with a variant in
/// its name (`model.fp16.safetensors`).
pub(super) fn find(folder: &Path, stem: &str) -> Option<Found> {
    let with = |variant: Option<&str>| {
        let variant = variant.map(|variant| format!(".{variant}")).unwrap_or_default();
        let file = folder.join(format!("{stem}{variant}.safetensors"));
        let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
        match (file.exists(), index.exists()) {
            (true, _) => Some(Found::File(file)),
            (false, true) => Some(Found::Sharded(index)),
            (false, false) => None,
        }
    };
    std::iter::once(None).chain(VARIANTS.map(Some)).find_map(with)
}

/// The message for a `folder` without readable weights `stem`: the reason, and what to do.
pub(super) fn absence(folder: &Path, stem: &str) -> String {
    let (names, target) = (file_names(folder), format!("{stem}.safetensors"));
    let other = |names: &BTreeSet<String>| names.iter().find(|name| name.ends_with(".safetensors")).cloned();
    match (other(&names), pickle(&names)) {
        (Some(name), _) if name.contains("adapter") => {
            return format!(
                "there is only {name}, an adapter (LoRA): merge it into its model first and save that"
            );
        }
        (Some(name), _) if name.starts_with("diffusion_") => {
            return format!("there is only {name}, a part of a diffusion model, which is not supported");
        }
        (Some(name), None) => {
            return format!("there is only {name} here: if these are the weights, call it {target}");
        }
        (_, Some(name)) => return conversion(folder, name, &target),
        (None, None) => {}
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    let below = folders.iter().find_map(|below| {
        let names = file_names(below);
        Some((below, other(&names).or_else(|| pickle(&names).map(str::to_owned))?))
    });
    if let Some((below, name)) = below {
        let seen = below.join(name);
        return format!(
            "there are no weights here, but {}: name the folder {}",
            seen.display(),
            below.display()
        );
    }
    let foreign = [".h5", ".msgpack", ".onnx", ".gguf", ".npz", ".tflite"];
    match names.iter().find(|name| foreign.iter().any(|ending| name.ends_with(ending))) {
        Some(name) => format!("there is only {name}, which is not supported: save the model as {target}"),
        None => "there are no weights here".to_owned(),
    }
}

/// The prefix of a Git LFS pointer.
const LFS_POINTER: &[u8] = b"version https://git-lfs.";

/// Checks that the `bytes` of a file are not a Git LFS pointer.
///
/// # Errors
/// They are; the message follows the file's name.
pub fn refuse_lfs_pointer(bytes: &[u8]) -> Result<(), String> {
    if bytes.starts_with(LFS_POINTER) {
        return Err(
            "is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository".to_owned()
        );
    }
    Ok(())
}

/// The message of [`refuse_lfs_pointer`] for a file, which may be large; none if it is not a pointer.
pub(super) fn is_lfs_pointer_file(file: &Path) -> Option<String> {
    let mut start = [0; LFS_POINTER.len()];
    File::open(file).ok()?.read_exact(&mut start).ok()?;
    refuse_lfs_pointer(&start).err()
}
