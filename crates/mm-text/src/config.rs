//! Functions that the configs of the text towers share.

use crate::{Error, Result, TextTowerSpec};
use mm_core::hf;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Refuses sizes out of range, too many layers, heads that do not divide the width, and an invalid epsilon.
pub(crate) fn check_tower(
    sizes: &[(&str, i64)],
    layers: i64,
    hidden_size: i64,
    heads: i64,
    eps: f64,
) -> Result<()> {
    hf::check_sizes(sizes)
        .and_then(|()| hf::check_layers("num_hidden_layers", layers))
        .and_then(|()| hf::check_heads(hidden_size, heads))
        .and_then(|()| hf::check_eps(eps))
        .map_err(Error::Config)
}

/// One line on a tower of this family and these sizes.
pub(crate) fn describe(
    family: &str,
    config: &dyn TextTowerSpec,
    layers: i64,
    width: i64,
    heads: i64,
) -> String {
    let (vocabulary, context) = (config.vocab_size(), config.context_length());
    format!("{family}: {layers} blocks, width {width}, {heads} heads; {vocabulary} ids, {context} positions")
}

/// `defaults` with the fields that the Hugging Face config sets.
pub(crate) fn overlay<T: Serialize + DeserializeOwned>(defaults: &T, config: &Value) -> Result<T> {
    hf::overlay(defaults, config).map_err(|reason| Error::Config(format!("text config: {reason}")))
}

/// Refuses a field with another value than `offered`, the only one that is supported; absent and null are
/// accepted.
pub(crate) fn check_only(config: &Value, name: &str, offered: Value) -> Result<()> {
    match &config[name] {
        Value::Null => Ok(()),
        given if *given == offered => Ok(()),
        given => Err(Error::Config(format!("{name} is {given}: only {offered} is offered"))),
    }
}
