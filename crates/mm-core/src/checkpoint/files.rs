//! The files that weights are in.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// Why a pickle is not read, to go on with how to convert it.
pub(crate) const PICKLE: &str = "a pickle, and reading one runs whatever code is in it; convert it where you trust it";

/// `model.safetensors.index.json`, as far as it matters here: the shard of each tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct ShardIndex {
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// It is none, or it names what is not a file beside it: such a name would reach outside of the checkpoint.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let index: Self = serde_json::from_slice(json).map_err(|error| format!("not an index of shards: {error}"))?;
        let is_beside = |shard: &str| {
            let mut parts = Path::new(shard).components();
            parts.next().is_some_and(|part| part == Component::Normal(shard.as_ref())) && parts.next().is_none()
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
    entries.filter(|entry| entry.path().is_file()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The first of `names` that holds weights as a pickle; a model's before an optimiser's. Its name goes into a command to be pasted, so
/// that one with quotes in it is passed over.
pub(crate) fn pickle(names: &BTreeSet<String>) -> Option<&str> {
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let is_pickle = |name: &str| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| name.ends_with(ending));
    let mut pickles = names.iter().map(String::as_str).filter(|name| is_pickle(name) && is_plain(name));
    pickles.clone().find(|name| name.contains("model")).or_else(|| pickles.next())
}
