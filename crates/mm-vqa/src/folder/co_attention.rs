//! The config of a co-attention classifier, in a format of this project.

use super::{Description, answers, labels};
use crate::co_attention::CoAttentionConfig;
use crate::{Error, Result, VqaModelConfig};
use serde_json::{Value, json};
use std::sync::Arc;

/// The `model_type` of co-attention classifiers.
pub(super) const MODEL_TYPE: &str = "mm-co-attention";

/// Reads the config.
pub(super) fn read(config: &Value) -> Result<Description> {
    let wrong = |what: &str, error: serde_json::Error| Error::Model(format!("{what}: {error}"));
    let model: CoAttentionConfig =
        serde_json::from_value(config["model"].clone()).map_err(|error| wrong("model", error))?;
    let scores = serde_json::from_value(config["scores"].clone()).map_err(|error| wrong("scores", error))?;
    let answers = Arc::new(answers(config)?);
    if model.classes != answers.len() as i64 {
        let (classes, count) = (model.classes, answers.len());
        return Err(Error::Model(format!("model.classes is {classes}, and id2label has {count} answers")));
    }
    model.validate()?;
    Ok(Description { model: VqaModelConfig::CoAttention(model), answers, scores })
}

/// Writes the config.
pub(super) fn write(description: &Description, model: &CoAttentionConfig) -> Result<Value> {
    Ok(json!({
        "architectures": ["CoAttention"],
        "model_type": MODEL_TYPE,
        "model": model,
        "scores": description.scores,
        "id2label": labels(&description.answers),
    }))
}
