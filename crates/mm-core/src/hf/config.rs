//! The fields that the configs of Hugging Face's models have in common.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest size that a config may name: beyond it lies a slip of the keyboard, and an allocation that
/// cannot succeed.
const MAX_SIZE: i64 = 1 << 20;

/// The most blocks of a stack: each costs some work before it is found that the weights have none like it.
const MAX_LAYERS: i64 = 1 << 10;

/// `defaults` with the fields that `config` sets. A `config.json` holds many more (dropout, `torch_dtype`,
/// ...), which say nothing about a tower's shape and are passed over; a field that is null means its default,
/// as in transformers.
///
/// # Errors
/// A field has another type.
pub fn overlay<T: Serialize + DeserializeOwned>(defaults: &T, config: &Value) -> serde_json::Result<T> {
    let mut fields = serde_json::to_value(defaults)?;
    for (name, value) in fields.as_object_mut().into_iter().flatten() {
        match &config[name.as_str()] {
            Value::Null => {}
            set => *value = set.clone(),
        }
    }
    serde_json::from_value(fields)
}

/// Checks that every named size lies in 1 to 1,048,576.
///
/// # Errors
/// Names the first that does not, with its value.
pub fn check_sizes(sizes: &[(&str, i64)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| !(1..=MAX_SIZE).contains(size)) {
        Some((name, size)) => Err(format!("{name} is {size}: it must be from 1 to {MAX_SIZE}")),
        None => Ok(()),
    }
}

/// Checks that a stack of the name `name` has from 1 to 1,024 blocks.
///
/// # Errors
/// It does not.
pub fn check_layers(name: &str, layers: i64) -> Result<(), String> {
    match (1..=MAX_LAYERS).contains(&layers) {
        true => Ok(()),
        false => Err(format!("{name} is {layers}: it must be from 1 to {MAX_LAYERS}")),
    }
}

/// Checks that the epsilon of layer norms lies between 0 and 1.
///
/// # Errors
/// It does not, or is no number.
pub fn check_eps(layer_norm_eps: f64) -> Result<(), String> {
    match layer_norm_eps > 0.0 && layer_norm_eps < 1.0 {
        true => Ok(()),
        false => Err(format!("layer_norm_eps is {layer_norm_eps}: it must lie between 0 and 1")),
    }
}

/// Checks that `heads` divide the width `hidden_size`; both lie above 0.
///
/// # Errors
/// They do not.
pub fn check_heads(hidden_size: i64, heads: i64) -> Result<(), String> {
    match hidden_size % heads {
        0 => Ok(()),
        _ => Err(format!("hidden_size {hidden_size} is no multiple of num_attention_heads {heads}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sizes {
        width: i64,
        depth: i64,
    }

    #[test]
    fn absent_and_null_fields_keep_their_defaults_and_unknown_ones_are_passed_over() {
        let defaults = Sizes { width: 8, depth: 2 };
        let read = |config| overlay(&defaults, &config);
        assert_eq!(
            read(json!({"width": 16, "depth": null, "dropout": 0.1})).unwrap(),
            Sizes { width: 16, depth: 2 }
        );
        assert!(read(json!({"width": "wide"})).is_err());
    }

    #[test]
    fn sizes_out_of_range_are_named() {
        assert!(check_sizes(&[("width", 1), ("depth", 0)]).unwrap_err().starts_with("depth is 0"));
        assert!(check_heads(32, 5).is_err() && check_heads(32, 4).is_ok());
        assert!(
            check_layers("depth", 1025).unwrap_err().starts_with("depth is 1025")
                && check_layers("depth", 24).is_ok()
        );
        for eps in [0.0, -1e-5, 1.0, f64::NAN] {
            assert!(check_eps(eps).unwrap_err().starts_with("layer_norm_eps is"));
        }
        assert!(check_eps(1e-12).is_ok());
    }
}
