//! Runs that train low-rank adapters on a frozen CLIP (`[lora]`).

use crate::folder::ModelFolder;
use crate::{Clip, ClipConfig, ModelConfig, Result};
use mm_core::checkpoint::{hf_names, variable_shapes};
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, record_linears};

/// Checks `[lora]` beside `[model]`, and its targets against the layers of the base model.
///
/// # Errors
/// A value is out of range, a target matches no layer, or `[model]` has no base model or a lock.
pub(crate) fn validate(
    lora: &LoraConfig,
    model: &ModelConfig,
    file: &ConfigFile,
) -> std::result::Result<(), ConfigError> {
    lora.validate(file)?;
    let Some(base) = &model.from else {
        let problem = "`lora` trains adapters of a pretrained model: set `model.from`";
        return Err(file.error("lora", problem));
    };
    for (key, is_set) in
        [("lock_image", model.lock_image.is_some()), ("lock_text", model.lock_text.is_some())]
    {
        if is_set {
            let problem = format!("`model.{key}`: `[lora]` freezes both towers already; remove one");
            return Err(file.error(&format!("model.{key}"), problem));
        }
    }
    // A base model that cannot be opened is an error of the task, with its own message.
    let layers = ModelFolder::open(base).and_then(|folder| layer_names(folder.clip()?));
    layers.map_or(Ok(()), |layers| lora.validate_targets(file, &layers))
}

/// The names of the linear layers of a CLIP in its checkpoint.
fn layer_names(config: &ClipConfig) -> Result<Vec<String>> {
    let (shapes, linears) = record_linears(|| variable_shapes(|path| Clip::new(path, config)));
    shapes?;
    Ok(linears.names(hf_names))
}
