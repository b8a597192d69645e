//! The alphas of PEFT's configs: `lora_adapter_metadata` in the header of a file, as diffusers writes it
//! since 0.35, or `adapter_config.json` beside one.

use super::Component;
use super::modules::TEXT_PREFIX;
use mm_core::checkpoint::Weights;
use mm_core::lora::ADAPTER_CONFIG_FILE;
use mm_core::one_line;
use serde_json::{Map, Value};
use std::path::Path;

/// The entry of a file's header.
pub(super) const METADATA_KEY: &str = "lora_adapter_metadata";

/// PEFT's alpha where a config has none.
const DEFAULT_ALPHA: f64 = 8.0;

/// The settings of the adapters in a file.
#[derive(Debug, Default)]
pub(super) struct AdapterMetadata {
    /// Fields of PEFT's config, with `unet.`, `text_encoder.`, ... in front where there are several.
    fields: Map<String, Value>,
}

impl AdapterMetadata {
    /// Reads the header of `file`, which is open as `weights`, or else the config beside it if it is the file
    /// of an adapter's folder.
    pub fn read(file: &Path, weights: &Weights) -> Result<Self, String> {
        let config = file.with_file_name(ADAPTER_CONFIG_FILE);
        let text = match weights.metadata(METADATA_KEY) {
            Some(entry) => entry.to_owned(),
            None if is_adapter_file(file) && config.exists() => {
                std::fs::read_to_string(&config).map_err(|error| format!("{}: {error}", config.display()))?
            }
            None => return Ok(Self::default()),
        };
        let metadata = match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Self { fields },
            Ok(_) => return Err("the config of the adapter is no JSON object".to_owned()),
            Err(error) => return Err(format!("the config of the adapter is not JSON ({error})")),
        };
        metadata.check()?;
        Ok(metadata)
    }

    /// Refuses settings that change the numbers and are not supported.
    fn check(&self) -> Result<(), String> {
        for (key, value) in &self.fields {
            let name = key.rsplit('.').next().unwrap_or(key);
            let is_plain = match name {
                "use_dora" | "fan_in_fan_out" | "lora_bias" | "use_qalora" | "use_bdlora" => {
                    matches!(value, Value::Null | Value::Bool(false))
                }
                "bias" => value.is_null() || value == "none",
                "peft_type" => value.is_null() || value == "LORA",
                "modules_to_save" => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
                _ => true,
            };
            if !is_plain {
                return Err(format!("the adapter has {key} {value}: only plain LoRA is supported"));
            }
        }
        Ok(())
    }

    /// The alpha of a layer of `rank`, such that the scale is alpha / rank; none if nothing is stored.
    pub fn alpha(&self, component: Component, module: &str, rank: i64) -> Result<Option<f64>, String> {
        let prefixed = |name: &str| format!("{}.{name}", component.name());
        let has_prefixes = self.fields.keys().any(|key| Component::ALL.iter().any(|c| is_below(key, *c)));
        let field = |name: &str| match has_prefixes {
            true => self.fields.get(&prefixed(name)),
            false => self.fields.get(name),
        };
        if field("r").is_none() && field("lora_alpha").is_none() {
            return Ok(None);
        }
        let number = |name: &str, value: &Value| {
            value.as_f64().ok_or_else(|| format!("the adapter's {name} is {}", one_line(&value.to_string())))
        };
        let mut alpha = match field("lora_alpha") {
            None | Some(Value::Null) => DEFAULT_ALPHA,
            Some(value) => number("lora_alpha", value)?,
        };
        let patterns = field("alpha_pattern").and_then(Value::as_object).into_iter().flatten();
        // Of several the one that says most: PEFT takes the first, an order that sorted files have lost.
        let mut longest = 0;
        for (pattern, value) in patterns {
            if matches(pattern, module)? && pattern.len() > longest {
                longest = pattern.len();
                alpha = number("alpha_pattern", value)?;
            }
        }
        let is_rslora = field("use_rslora") == Some(&Value::Bool(true));
        // rsLoRA's scale is alpha / sqrt(rank).
        Ok(Some(if is_rslora { alpha * (rank as f64).sqrt() } else { alpha }))
    }
}

fn is_below(key: &str, component: Component) -> bool {
    key.strip_prefix(component.name()).is_some_and(|rest| rest.starts_with('.'))
}

fn is_adapter_file(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == mm_core::lora::ADAPTER_WEIGHTS_FILE)
}

/// Whether PEFT's pattern, the end of a name or after `^` all of it, means `module`.
fn matches(pattern: &str, module: &str) -> Result<bool, String> {
    let (literal, is_whole) = match pattern.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    if literal.contains(['\\', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$']) {
        return Err(format!(
            "alpha_pattern has the regular expression {pattern:?}: only names are supported"
        ));
    }
    let short = module.strip_prefix(TEXT_PREFIX).unwrap_or(module);
    let ends =
        |name: &str| name.strip_suffix(literal).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    Ok(if is_whole { literal == module || literal == short } else { ends(module) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(fields: Value) -> AdapterMetadata {
        AdapterMetadata { fields: fields.as_object().unwrap().clone() }
    }

    #[test]
    fn an_alpha_is_that_of_the_component_and_of_the_longest_pattern() {
        let stored = metadata(json!({
            "unet.r": 4, "unet.lora_alpha": 6,
            "unet.alpha_pattern": {"to_q": 1, "attn1.to_q": 2, "^mid.attn2.to_q": 3},
        }));
        let alpha = |component, module| stored.alpha(component, module, 4).unwrap();
        assert_eq!(alpha(Component::Unet, "mid.attn1.to_k"), Some(6.0));
        assert_eq!(alpha(Component::Unet, "mid.attn1.to_q"), Some(2.0));
        assert_eq!(alpha(Component::Unet, "up.mid.attn2.to_q"), Some(1.0));
        assert_eq!(alpha(Component::Unet, "mid.attn2.to_q"), Some(3.0));
        assert_eq!(alpha(Component::TextEncoder, "mid.attn1.to_q"), None);
    }

    #[test]
    fn a_config_without_prefixes_is_of_every_component_and_rslora_divides_by_the_root() {
        let stored = metadata(json!({"r": 4, "lora_alpha": 6, "use_rslora": true}));
        assert_eq!(stored.alpha(Component::Unet, "x", 4).unwrap(), Some(12.0));
        assert_eq!(metadata(json!({"r": 4})).alpha(Component::Unet, "x", 4).unwrap(), Some(8.0));
        assert_eq!(AdapterMetadata::default().alpha(Component::Unet, "x", 4).unwrap(), None);
    }

    #[test]
    fn settings_that_change_the_numbers_are_refused() {
        for fields in [json!({"unet.use_dora": true}), json!({"bias": "all"}), json!({"peft_type": "LOKR"})] {
            assert!(metadata(fields).check().unwrap_err().contains("only plain LoRA"));
        }
        let pattern = metadata(json!({"r": 4, "alpha_pattern": {"to_(q|k)": 2}}));
        assert!(pattern.alpha(Component::Unet, "x", 4).unwrap_err().contains("regular expression"));
        let word = metadata(json!({"r": 4, "lora_alpha": "much"}));
        assert!(word.alpha(Component::Unet, "x", 4).unwrap_err().contains("lora_alpha is \"much\""));
    }
}
