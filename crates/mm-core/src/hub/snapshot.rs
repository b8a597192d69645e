//! The files of a model on the hub.

use crate::checkpoint::{ShardIndex, file_names};
use std::collections::BTreeSet;
use std::path::Path;

/// The configs: a model has one of them, or both.
pub const CONFIGS: [&str; 2] = ["config.json", "open_clip_config.json"];

/// The optional files of a model beside config and weights.
pub const EXTRAS: [&str; 16] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// The files with weights or their index, each with its config. Of several, the first is read.
pub const WEIGHTS: [(&str, &str); 6] = [
    ("open_clip_model.safetensors", "open_clip_config.json"),
    ("open_clip_model.safetensors.index.json", "open_clip_config.json"),
    ("model.safetensors", "config.json"),
    ("model.safetensors.index.json", "config.json"),
    ("model.bf16.safetensors", "config.json"),
    ("model.fp16.safetensors", "config.json"),
];

/// The folder in which sentence-transformers keeps a CLIP.
pub const SENTENCE_CLIP: &str = "0_CLIPModel";

/// The prefix of the names of a model's files, given all its files: empty, or the folder in which
/// sentence-transformers keeps a CLIP.
pub fn root(names: &BTreeSet<String>) -> String {
    let folder = format!("{SENTENCE_CLIP}/");
    let has_config = |root: &str| CONFIGS.iter().any(|config| names.contains(&format!("{root}{config}")));
    if !has_config("") && has_config(&folder) { folder } else { String::new() }
}

/// The file of [`WEIGHTS`] to read, given all files of the model. The config beside the weights need not be
/// theirs: open_clip sometimes names its weights `model.safetensors`.
pub fn weights(names: &BTreeSet<String>) -> Option<&'static str> {
    let present = || WEIGHTS.iter().filter(|(weights, _)| names.contains(*weights));
    let (weights, _) = present().find(|(_, config)| names.contains(*config)).or_else(|| present().next())?;
    Some(weights)
}

/// The first missing file of the model in `folder`; none if config and all weights are present.
pub fn missing_file(folder: &Path) -> Option<String> {
    let names = file_names(folder);
    let below = folder.join(SENTENCE_CLIP);
    if !CONFIGS.iter().any(|config| names.contains(*config)) && below.is_dir() {
        return missing_file(&below).map(|file| format!("{SENTENCE_CLIP}/{file}"));
    }
    if !CONFIGS.iter().any(|config| names.contains(*config)) {
        return Some(CONFIGS[0].to_owned());
    }
    let Some(weights) = weights(&names) else { return Some("model.safetensors".to_owned()) };
    if !weights.ends_with(".index.json") {
        return None;
    }
    match std::fs::read(folder.join(weights))
        .map_err(|error| error.to_string())
        .and_then(|json| ShardIndex::parse(&json))
    {
        Ok(index) => index.shards().into_iter().find(|shard| !names.contains(*shard)).map(str::to_owned),
        Err(_) => Some(weights.to_owned()),
    }
}
