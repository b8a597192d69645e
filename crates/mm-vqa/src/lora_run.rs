//! Runs that train low-rank adapters on a frozen model (`[lora]`).

use crate::folder::VqaFolder;
use crate::run_config::ModelConfig;
use crate::{Result, VqaModel};
use mm_core::checkpoint::{hf_names, variable_shapes};
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, record_linears};

/// Checks `[lora]` beside `[model]`, and its targets against the layers of the base model.
///
/// # Errors
/// A value is out of range, a target matches no layer, or `[model]` has no base model.
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
    if model.freeze_image {
        let problem = "`model.freeze_image`: `[lora]` freezes the whole model already; remove it";
        return Err(file.error("model.freeze_image", problem));
    }
    // A base model that cannot be opened is an error of the task, with its own message.
    let layers = VqaFolder::open(base).and_then(|folder| layer_names(&folder));
    layers.map_or(Ok(()), |layers| lora.validate_targets(file, &layers))
}

/// The names of the linear layers of a model in its checkpoint.
fn layer_names(folder: &VqaFolder) -> Result<Vec<String>> {
    let config = &folder.config;
    let (shapes, linears) = record_linears(|| variable_shapes(|path| VqaModel::new(path, config)));
    shapes?;
    Ok(linears.names(hf_names))
}
