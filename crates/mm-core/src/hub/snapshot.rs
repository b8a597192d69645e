//! Which files a model needs.

use std::collections::BTreeSet;
use std::path::{Component, Path};

/// The configs: a model has one of them, or both.
pub const CONFIGS: [&str; 2] = ["config.json", "open_clip_config.json"];

/// What a model may have beside its config and weights.
pub const EXTRAS: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "1_Pooling/config.json",
];

/// The files that weights are in or are indexed by, each with the config that it needs. Of a model that has several, the first is
/// read.
pub const WEIGHTS: [(&str, &str); 4] = [
    ("open_clip_model.safetensors", "open_clip_config.json"),
    ("open_clip_model.safetensors.index.json", "open_clip_config.json"),
    ("model.safetensors", "config.json"),
    ("model.safetensors.index.json", "config.json"),
];

/// The file of [`WEIGHTS`] to read of a model with the files `names`. The config that is beside the weights need not be theirs:
/// open_clip calls its weights `model.safetensors` at times.
pub fn weights(names: &BTreeSet<String>) -> Option<&'static str> {
    let present = || WEIGHTS.iter().filter(|(weights, _)| names.contains(*weights));
    let (weights, _) = present().find(|(_, config)| names.contains(*config)).or_else(|| present().next())?;
    Some(weights)
}

/// The first file that the model in `folder` lacks; none if it has a config and all of its weights.
pub fn lacking(folder: &Path) -> Option<String> {
    let names = names(folder);
    if !CONFIGS.iter().any(|config| names.contains(*config)) {
        return Some(CONFIGS[0].to_owned());
    }
    let Some(weights) = weights(&names) else { return Some("model.safetensors".to_owned()) };
    if !weights.ends_with(".index.json") {
        return None;
    }
    match std::fs::read(folder.join(weights)).map_err(|error| error.to_string()).and_then(|index| shards(&index)) {
        Ok(shards) => shards.into_iter().find(|shard| !names.contains(shard)),
        Err(_) => Some(weights.to_owned()),
    }
}

/// The files that an index of shards names.
///
/// # Errors
/// It is no such index, or names what is not a file beside it.
pub fn shards(index: &[u8]) -> Result<BTreeSet<String>, String> {
    let index: serde_json::Value = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let shards = index["weight_map"].as_object().ok_or("it has no weight_map")?.values().map(|shard| {
        let mut parts = Path::new(shard.as_str().unwrap_or_default()).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(name)), None) => Ok(name.to_string_lossy().into_owned()),
            _ => Err(format!("{shard} is not the name of a file beside it")),
        }
    });
    shards.collect()
}

/// The files directly in `folder`; a link to nothing is none.
pub fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_file()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The first of `names` that holds weights as a pickle.
pub fn pickle(names: &BTreeSet<String>) -> Option<String> {
    let is_pickle = |name: &&String| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| name.ends_with(ending));
    names.iter().find(is_pickle).cloned()
}
