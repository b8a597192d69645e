//! The config of a co-attention model with its answers, in a format of this project.

use super::labels::{answers, labels};
use crate::co_attention::CoAttentionConfig;
use crate::{Error, LossKind, Result};
use serde::Serialize;
use serde_json::{Value, json};

/// A co-attention model with its answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassifierConfig {
    /// The model.
    pub model: CoAttentionConfig,
    /// The answers, one for each class.
    pub answers: Vec<String>,
    /// The loss that its scores are trained with, which says how they become probabilities.
    pub scores: LossKind,
}

/// The `model_type` of co-attention models.
pub(super) const MODEL_TYPE: &str = "mm-co-attention";

/// Reads the config.
pub(super) fn read(config: &Value) -> Result<ClassifierConfig> {
    let wrong = |what: &str, error: serde_json::Error| Error::Model(format!("{what}: {error}"));
    let model: CoAttentionConfig =
        serde_json::from_value(config["model"].clone()).map_err(|error| wrong("model", error))?;
    let scores = serde_json::from_value(config["scores"].clone()).map_err(|error| wrong("scores", error))?;
    let answers = answers(&config["id2label"])?;
    if model.classes != answers.len() as i64 {
        let (classes, count) = (model.classes, answers.len());
        return Err(Error::Model(format!("model.classes is {classes}, and id2label has {count} answers")));
    }
    model.validate()?;
    Ok(ClassifierConfig { model, answers, scores })
}

/// Writes the config.
pub(super) fn write(config: &ClassifierConfig) -> Value {
    json!({
        "architectures": ["CoAttention"],
        "model_type": MODEL_TYPE,
        "model": config.model,
        "scores": config.scores,
        "id2label": labels(&config.answers),
    })
}
