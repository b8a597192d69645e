//! Where in a folder the model lies: at its top, or where other programs keep it, or in a run of this one.

use super::{HF_CONFIG, OPEN_CLIP_CONFIG};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The weights of a training checkpoint.
pub(super) const LAST_STEP: &str = "model.safetensors";

/// Their running averages, where the run keeps any.
pub(super) const AVERAGES: &str = "ema.safetensors";

/// What sentence-transformers calls the folder of a CLIP in its models.
const SENTENCE_CLIP: &str = "0_CLIPModel";

/// The folder of the model itself, in what was named as one.
///
/// # Errors
/// The folder is known to hold models, but is none: a run's, a checkpoint that holds no config, or a pipeline
/// of diffusers.
pub(super) fn model_folder(folder: PathBuf) -> Result<PathBuf> {
    let has = |name: &str| folder.join(name).exists();
    if has(HF_CONFIG) || has(OPEN_CLIP_CONFIG) {
        return Ok(folder);
    }
    let problem = if is_checkpoint(&folder) {
        "is a checkpoint without config.json, from before checkpoints had one: resume the run, whose next checkpoint has it".to_owned()
    } else if has("config.toml") && has("checkpoints") {
        let name = if has("model") { "model" } else { "checkpoints/latest" };
        format!("is a run's folder: its model is {}", folder.join(name).display())
    } else if has("model_index.json") {
        let models = ["text_encoder", "image_encoder", "text_encoder_2"].map(|name| folder.join(name));
        let seen: Vec<String> =
            models.iter().filter(|model| model.is_dir()).map(|model| model.display().to_string()).collect();
        match seen.is_empty() {
            true => "is a pipeline of diffusers without a text or image encoder".to_owned(),
            false => format!("is a pipeline of diffusers: name one of its models, {}", seen.join(" or ")),
        }
    } else if has(SENTENCE_CLIP) {
        return Ok(folder.join(SENTENCE_CLIP));
    } else {
        return Ok(folder); // bare weights, or nothing: opening them tells
    };
    Err(Error::Folder { path: folder, problem })
}

/// Whether `folder` is a checkpoint of a training run.
pub(super) fn is_checkpoint(folder: &Path) -> bool {
    ["state.json", "optimizer.safetensors"].iter().all(|name| folder.join(name).exists())
}

/// Where the tokenizer of the model in `folder` is: beside it, or, in a pipeline of diffusers, in the folder
/// that belongs to its encoder.
pub(super) fn tokenizer_folder(folder: &Path) -> PathBuf {
    let sibling = |name: &str| folder.with_file_name(name);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("text_encoder") if is_in_pipeline(folder) => sibling("tokenizer"),
        Some("text_encoder_2") if is_in_pipeline(folder) => sibling("tokenizer_2"),
        _ => folder.to_owned(),
    }
}

/// Where the preprocessing of the model in `folder` is, likewise.
pub(super) fn processor_folder(folder: &Path) -> PathBuf {
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("image_encoder") if is_in_pipeline(folder) => folder.with_file_name("feature_extractor"),
        _ => folder.to_owned(),
    }
}

fn is_in_pipeline(folder: &Path) -> bool {
    folder.with_file_name("model_index.json").exists()
}
