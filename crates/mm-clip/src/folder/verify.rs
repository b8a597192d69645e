//! Verification of written folders: a model that opens with other inputs or outputs would be found late or
//! never.

use super::{Architecture, CheckpointFormat, Description, ModelFolder};
use crate::{Clip, ClipConfig, Error, ImageEncoder, Result, TextEncoder, TextProjection};
use mm_text::{TextTowerConfig, Tokenizer};
use mm_vision::{ImageProcessor, ImageTowerConfig};
use std::path::Path;

/// Opens the written `folder` and compares it with `description`: config, names and shapes of the tensors,
/// preprocessing and tokenizer. The model is not run.
///
/// # Errors
/// It cannot be opened, or differs: the format cannot represent the model.
pub(crate) fn verify(folder: &Path, form: CheckpointFormat, description: &Description) -> Result<()> {
    let path = folder.to_str().ok_or_else(|| Error::Model("the folder's name is not UTF-8".to_owned()))?;
    let mut written = ModelFolder::open(path)?;
    if written.format != form {
        return Err(unlike("it would be read as a folder of another format"));
    }
    same_architecture(&written.architecture, description.architecture, description.tokenizer)?;
    let architecture = written.architecture.clone();
    written.check_shapes(None, |path| match &architecture {
        Architecture::Clip(config) => Clip::new(path, config).map(drop),
        Architecture::Image { tower, projection } => ImageEncoder::new(path, tower, *projection).map(drop),
        Architecture::Text { tower, projection } => {
            TextEncoder::new(path, tower, projection.map(TextProjection::linear)).map(drop)
        }
    })?;
    if let Some(processor) = description.processor {
        same_processor(&written.processor()?, processor)?;
    }
    let Some(tokenizer) = description.tokenizer else { return Ok(()) };
    match tokenizer.difference(&written.tokenizer()?) {
        Some(difference) => Err(unlike(&format!("the tokenizer would not be the same: {difference}"))),
        None => Ok(()),
    }
}

/// Checks that the preprocessing is the same.
pub(super) fn same_processor(read: &ImageProcessor, meant: &ImageProcessor) -> Result<()> {
    if read == meant {
        return Ok(());
    }
    Err(unlike(&format!("the preprocessing would be {read} instead of {meant}")))
}

/// Checks that the config is of the same model. Settings of training only may differ.
pub(crate) fn same_architecture(
    read: &Architecture,
    meant: &Architecture,
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    let (read, meant) = (inference_only(read, tokenizer), inference_only(meant, tokenizer));
    if read == meant {
        return Ok(());
    }
    Err(unlike(&format!("the config would read as {}", first_difference(&read, &meant))))
}

/// `architecture` without settings of training, and with one representation of the pooled token.
fn inference_only(architecture: &Architecture, tokenizer: Option<&Tokenizer>) -> Architecture {
    let mut architecture = architecture.clone();
    match &mut architecture {
        Architecture::Clip(config) => config.set_gradient_checkpointing(false),
        Architecture::Image { tower, .. } => tower.set_gradient_checkpointing(false),
        Architecture::Text { tower, .. } => tower.set_gradient_checkpointing(false),
    }
    if let Architecture::Clip(ClipConfig { image: ImageTowerConfig::Vit(vit), .. })
    | Architecture::Image { tower: ImageTowerConfig::Vit(vit), .. } = &mut architecture
    {
        vit.patch_dropout = 0.0;
    }
    if let Architecture::Clip(ClipConfig { text: TextTowerConfig::Clip(text), .. })
    | Architecture::Text { tower: TextTowerConfig::Clip(text), .. } = &mut architecture
    {
        // SigLIP's tower pools no token; the last id of the vocabulary is always the largest of its text.
        let largest = tokenizer
            .filter(|tokenizer| tokenizer.eos_is_largest())
            .map(|tokenizer| tokenizer.eos_id().into());
        let is_largest = |token: i64| Some(token) == largest || token == text.vocab_size - 1;
        if text.pooled_token().is_none_or(is_largest) {
            text.eos_token_id = mm_text::ClipTextConfig::LARGEST_ID;
        }
        text.projection_size = Some(text.output_width());
    }
    architecture
}

/// The first field in which two configs differ, and how.
fn first_difference(read: &Architecture, meant: &Architecture) -> String {
    let json = |architecture| serde_json::to_value(architecture).unwrap_or_default();
    let (mut place, mut read, mut meant) = (String::new(), json(read), json(meant));
    while let (Some(fields), Some(others)) = (read.as_object(), meant.as_object()) {
        let names = fields.keys().chain(others.keys());
        let Some(name) = names.into_iter().find(|name| fields.get(*name) != others.get(*name)).cloned()
        else {
            break;
        };
        place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
        (read, meant) = (read[name.as_str()].take(), meant[name.as_str()].take());
    }
    format!("{place} = {read} instead of {meant}")
}

fn unlike(problem: &str) -> Error {
    Error::Model(format!("this format cannot represent it: {problem}"))
}
