//! The config of OpenAI's state dicts, from the shapes of the tensors.

use super::{HEAD_WIDTH, read, write};
use crate::{ClipConfig, Error, Result};
use mm_core::checkpoint::Weights;
use mm_text::TextTowerConfig;
use serde_json::{Value, json};

/// The config of a state dict of OpenAI, from the shapes of its tensors.
///
/// # Errors
/// It is not one of OpenAI's.
pub(in crate::folder) fn infer(weights: &Weights) -> Result<ClipConfig> {
    read(&config_of_shapes(weights)?, None)
}

/// The `model_cfg` that OpenAI's code, and open_clip's, derive from a state dict.
fn config_of_shapes(weights: &Weights) -> Result<Value> {
    let size = |name: &str, dimension: usize| {
        let shape = weights.shape(name).and_then(|shape| shape.get(dimension));
        shape.map(|&n| n as i64).ok_or_else(|| {
            let problem = format!(
                "neither config.json nor open_clip_config.json is here, and without {name} \
                 the weights are not OpenAI's either"
            );
            Error::Folder { path: weights.path().to_owned(), problem }
        })
    };
    let blocks =
        |prefix: &str| (0..).take_while(|index| weights.has_prefix(&format!("{prefix}.{index}."))).count();
    let root = |count: i64| ((count - 1) as f64).sqrt().round() as i64;
    let width = size("ln_final.weight", 0)?;
    let mut vision_cfg = if weights.shape("visual.proj").is_some() {
        let (width, patch) = (size("visual.conv1.weight", 0)?, size("visual.conv1.weight", 3)?);
        json!({
            "width": width,
            "layers": blocks("visual.transformer.resblocks"),
            "patch_size": patch,
            "image_size": patch.saturating_mul(root(size("visual.positional_embedding", 0)?)),
        })
    } else {
        let layers = [1, 2, 3, 4].map(|stage| blocks(&format!("visual.layer{stage}")));
        json!({
            "width": size("visual.layer1.0.conv1.weight", 0)?,
            "layers": layers,
            "image_size": 32 * root(size("visual.attnpool.positional_embedding", 0)?),
        })
    };
    vision_cfg["head_width"] = HEAD_WIDTH.into();
    Ok(json!({
        "embed_dim": size("text_projection", 1)?,
        "quick_gelu": true,
        "vision_cfg": vision_cfg,
        "text_cfg": {
            "context_length": size("positional_embedding", 0)?,
            "vocab_size": size("token_embedding.weight", 0)?,
            "width": width,
            "heads": width / HEAD_WIDTH,
            "layers": blocks("transformer.resblocks"),
        },
    }))
}

/// Checks that the shapes of a model's tensors give its config: OpenAI's format has no other.
///
/// # Errors
/// The first field that readers would read differently.
pub(in crate::folder) fn check_shapes_give_config(config: &ClipConfig, weights: &Weights) -> Result<()> {
    if let TextTowerConfig::Bert(_) = &config.text {
        return Err(Error::Model("OpenAI's format has no BERT: keep it in another format".to_owned()));
    }
    let (own, derived) = (write(config, None)?, config_of_shapes(weights)?);
    let fields = |config: &Value| -> Vec<(String, Value)> {
        let parts = ["vision_cfg", "text_cfg"].map(|part| (format!("{part}."), config[part].clone()));
        let all = parts.into_iter().chain([(String::new(), config.clone())]);
        all.flat_map(|(place, part)| {
            let named =
                part.as_object().cloned().into_iter().flatten().filter(|(_, value)| !value.is_object());
            named.map(|(name, value)| (format!("{place}{name}"), value)).collect::<Vec<_>>()
        })
        .collect()
    };
    let (own, derived) = (fields(&own), fields(&derived));
    let Some((name, value)) = own.iter().find(|field| !derived.contains(field)) else { return Ok(()) };
    let other = derived.iter().find(|(other, _)| other == name).map_or(&Value::Null, |(_, other)| other);
    let other = if other.is_null() { "open_clip's default".to_owned() } else { other.to_string() };
    let reason = format!("its {name} is {value}, and readers would use {other}: keep it in another format");
    Err(Error::Model(format!("OpenAI's format has no place for the model's config: {reason}")))
}
