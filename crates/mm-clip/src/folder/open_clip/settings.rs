//! The settings of an open_clip `model_cfg` that are supported: an allow-list, so that a setting unknown here
//! is an error and not a model with other outputs.

use crate::{Error, Result};
use serde_json::{Value, json};

/// The settings of `model_cfg` that are read, or that bear on initialization and training only.
const MODEL: [&str; 12] = [
    "embed_dim",
    "quick_gelu",
    "vision_cfg",
    "text_cfg",
    "init_logit_bias",
    "init_logit_scale",
    "nonscalar_logit_scale",
    "custom_text",
    "output_dict",
    "cast_dtype",
    "pretrained_image",
    "pretrained_hf",
];

/// The settings of `vision_cfg` that are read, or that have no effect without another one that is refused.
const VISION: [&str; 18] = [
    "image_size",
    "layers",
    "width",
    "head_width",
    "mlp_ratio",
    "patch_size",
    "patch_dropout",
    "act_kwargs",
    "norm_kwargs",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "timm_model_name",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
];

/// The same of `text_cfg`.
const TEXT: [&str; 19] = [
    "context_length",
    "vocab_size",
    "width",
    "heads",
    "layers",
    "mlp_ratio",
    "act_kwargs",
    "norm_kwargs",
    "eos_id",
    "pad_id",
    "hf_tokenizer_name",
    "tokenizer_mode",
    "tokenizer_kwargs",
    "hf_model_name",
    "hf_model_pretrained",
    "hf_proj_type",
    "proj",
    "hf_pooler_type",
    "pooler_type",
];

/// The supported values of settings that are words.
const WORDS: [(&str, &[&str]); 4] = [
    ("pos_embed_type", &["learnable"]),
    ("proj_type", &["linear"]),
    ("block_type", &["default"]),
    ("pool_type", &["tok", "argmax", "eos"]),
];

/// Checks that `model_cfg` has supported settings only.
///
/// # Errors
/// The first unsupported setting, with its value.
pub(super) fn check(model_cfg: &Value) -> Result<()> {
    check_table("model_cfg", model_cfg, &MODEL)?;
    check_table("vision_cfg", &model_cfg["vision_cfg"], &VISION)?;
    check_table("text_cfg", &model_cfg["text_cfg"], &TEXT)
}

fn check_table(place: &str, config: &Value, allowed: &[&str]) -> Result<()> {
    let unsupported = config.as_object().into_iter().flatten().find(|(name, value)| {
        let is_word = |(word, values): &(&str, &[&str])| {
            word == name && value.as_str().is_some_and(|value| values.contains(&value))
        };
        !(allowed.contains(&name.as_str()) || is_off(value) || WORDS.iter().any(is_word))
    });
    let Some((name, value)) = unsupported else { return Ok(()) };
    Err(Error::Model(match name.as_str() {
        "multimodal_cfg" => "CoCa (multimodal_cfg) is not supported".to_owned(),
        _ => format!("{place}.{name} = {value} is not supported"),
    }))
}

/// Whether `value` is that of a setting which is off.
fn is_off(value: &Value) -> bool {
    value.is_null() || *value == json!(false) || *value == json!("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(model_cfg: Value) -> Option<String> {
        check(&model_cfg).err().map(|error| error.to_string())
    }

    #[test]
    fn settings_unknown_here_are_refused_by_name_and_those_that_are_off_are_not() {
        let off = json!({ "ls_init_value": null, "attentional_pool": false, "timm_model_name": "" });
        assert_eq!(refusal(json!({ "embed_dim": 8, "vision_cfg": off })), None);
        let pooled = json!({ "pool_type": "tok", "timm_pool": "avg", "attn_pooler_queries": 256 });
        assert_eq!(refusal(json!({ "vision_cfg": pooled })), None);
        for (place, setting, value) in [
            ("vision_cfg", "rope", json!(true)),
            ("vision_cfg", "pool_type", json!("avg")),
            ("vision_cfg", "no_ln_pre", json!(true)),
            ("text_cfg", "ls_init_value", json!(0.1)),
            ("text_cfg", "attention_window", json!(8)),
        ] {
            let message = refusal(json!({ place: { setting: value } })).unwrap();
            assert!(message.contains(&format!("{place}.{setting} = {value} is not supported")), "{message}");
        }
        let message = refusal(json!({ "vision_cfg": {}, "fusion": "early" })).unwrap();
        assert!(message.contains("model_cfg.fusion = \"early\" is not supported"), "{message}");
    }
}
