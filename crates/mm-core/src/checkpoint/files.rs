//! The files that weights are in.

use super::pickle::{conversion, pickle};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The variants that Hugging Face's programs put into a file's name, the most exact first.
const VARIANTS: [&str; 3] = ["fp32", "bf16", "fp16"];

/// `model.safetensors.index.json`, as far as it matters here: the shard of each tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct ShardIndex {
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// It is none, or it names what is not a file beside it: such a name would reach outside of the
    /// checkpoint.
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

    /// The shards, each once.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// The files directly in `folder`; a link to nothing is none.
pub(crate) fn file_names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Where the weights `stem` of a folder are.
pub(super) enum Found {
    /// In one file.
    Whole(PathBuf),
    /// In the shards that this index names.
    Sharded(PathBuf),
}

/// The weights `stem` of `folder`: `STEM.safetensors`, the index of its shards, or either with a variant in
/// its name (`model.fp16.safetensors`).
pub(super) fn find(folder: &Path, stem: &str) -> Option<Found> {
    let with = |variant: Option<&str>| {
        let variant = variant.map(|variant| format!(".{variant}")).unwrap_or_default();
        let whole = folder.join(format!("{stem}{variant}.safetensors"));
        let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
        match (whole.exists(), index.exists()) {
            (true, _) => Some(Found::Whole(whole)),
            (false, true) => Some(Found::Sharded(index)),
            (false, false) => None,
        }
    };
    std::iter::once(None).chain(VARIANTS.map(Some)).find_map(with)
}

/// Why `folder` has no weights `stem` that can be read, and what to do.
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
            return format!("there is only {name}, a part of a diffusion model, which is not offered");
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
        Some(name) => format!("there is only {name}, which is not offered: save the model as {target}"),
        None => "there are no weights here".to_owned(),
    }
}

/// What a Git LFS pointer begins with, up to the address of its specification.
const LFS_POINTER: &[u8] = b"version https://git-lfs.";

/// Refuses the `bytes` of a file that is the pointer that Git LFS leaves in its place.
///
/// # Errors
/// It is one: what to do, to go on from the file's name.
pub fn refuse_lfs_pointer(bytes: &[u8]) -> Result<(), String> {
    match bytes.starts_with(LFS_POINTER) {
        true => {
            Err("is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository".to_owned())
        }
        false => Ok(()),
    }
}

/// As [`refuse_lfs_pointer`], of the file itself, which may be large: why it cannot be read, if it is a
/// pointer.
pub(super) fn is_lfs_pointer_file(file: &Path) -> Option<String> {
    let mut start = [0; LFS_POINTER.len()];
    File::open(file).ok()?.read_exact(&mut start).ok()?;
    refuse_lfs_pointer(&start).err()
}
