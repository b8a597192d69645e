//! What the towers' configs share: checks, and reading them out of a Hugging Face `config.json`.

use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Refuses a size below one.
pub(crate) fn check_positive(fields: &[(&str, i64)]) -> Result<()> {
    match fields.iter().find(|(_, value)| *value < 1) {
        Some((name, value)) => Err(Error::Config(format!("{name} = {value}: expected at least 1"))),
        None => Ok(()),
    }
}

/// Refuses heads that do not divide the width.
pub(crate) fn check_heads(hidden_size: i64, heads: i64) -> Result<()> {
    if hidden_size % heads == 0 {
        return Ok(());
    }
    Err(Error::Config(format!("hidden_size = {hidden_size} is not a multiple of num_attention_heads = {heads}")))
}

/// `defaults` with the fields that `config` sets. A Hugging Face config holds many more (dropout, `torch_dtype`, ...), which say
/// nothing about a tower's shape and are passed over, as are fields that are null.
pub(crate) fn overlay<T: Serialize + DeserializeOwned>(defaults: &T, config: &Value) -> Result<T> {
    let invalid = |reason: serde_json::Error| Error::Config(format!("text config: {reason}"));
    let mut fields = serde_json::to_value(defaults).map_err(invalid)?;
    for (name, value) in fields.as_object_mut().into_iter().flatten() {
        match &config[name.as_str()] {
            Value::Null => {}
            set => *value = set.clone(),
        }
    }
    serde_json::from_value(fields).map_err(invalid)
}
