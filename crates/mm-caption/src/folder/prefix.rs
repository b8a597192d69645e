//! This project's config of a ClipCap (Mokady et al. 2021), whose authors publish a state dict alone.
//!
//! `model.safetensors` is that state dict (`clip_project.*`, `gpt.*`), and the folder `clip` holds the CLIP
//! that the prefix is made from, as transformers' `CLIPVisionModelWithProjection` writes it: either part
//! opens with its own peer.

use super::Description;
use crate::config::{PrefixConfig, PrefixMapperConfig};
use crate::{CaptionerConfig, CaptionerVariant, Error, Result};
use mm_core::hf::{CONFIG_FILE, PROCESSOR_CONFIG_FILE};
use mm_core::write_json;
use mm_text::decoder::{Gpt2Config, SpecialTokens, TextDecoderConfig, token_id};
use mm_vision::{ImageProcessor, ImageTowerConfig, VitConfig, VitVariant};
use serde_json::{Value, json};
use std::path::Path;

/// The `model_type` of the config.
pub(super) const MODEL_TYPE: &str = "clip_prefix";

/// The weights of the CLIP.
pub(super) const CLIP_FILE: &str = "clip/model.safetensors";

/// Whether a tensor is one of the CLIP.
pub(super) fn is_of_clip(name: &str) -> bool {
    name.starts_with("vision_model.") || name.starts_with("visual_projection.")
}

/// Reads the config.
pub(super) fn read(config: &Value) -> Result<Description> {
    let image = ImageTowerConfig::Vit(VitConfig::from_hf(&config["vision_config"], VitVariant::Clip)?);
    let decoder = TextDecoderConfig::Gpt2(Gpt2Config::from_hf(&config["gpt"])?);
    let model =
        CaptionerConfig { image, decoder, variant: CaptionerVariant::Prefix(clip_prefix_config(config)?) };
    let end = token_id(config, "eos_token_id").ok_or_else(|| Error::Model("no eos_token_id".to_owned()))?;
    let pad = token_id(config, "pad_token_id").unwrap_or(end);
    Ok(Description { model, tokens: SpecialTokens { start: None, end, pad } })
}

/// Reads the settings of the mapping network, which have the names of the authors' command line.
pub(crate) fn clip_prefix_config(config: &Value) -> Result<PrefixConfig> {
    let size = |name: &str| {
        config[name].as_i64().ok_or_else(|| Error::Model(format!("{name} is {}: not a size", config[name])))
    };
    let mapper = match config["mapping_type"].as_str() {
        Some("mlp") => PrefixMapperConfig::Mlp,
        Some("transformer") => PrefixMapperConfig::Transformer {
            clip_length: size("prefix_length_clip")?,
            layers: size("num_layers")?,
        },
        _ => {
            let given = &config["mapping_type"];
            return Err(Error::Model(format!("mapping_type is {given}: offered are mlp and transformer")));
        }
    };
    Ok(PrefixConfig {
        length: size("prefix_length")?,
        mapper,
        projection: size("prefix_size")?,
        is_normalized: config["normalize_prefix"].as_bool().unwrap_or(false),
    })
}

/// Writes the config.
pub(super) fn write(description: &Description, prefix: &PrefixConfig) -> Value {
    let Description { model, tokens } = description;
    let mut config = json!({
        "architectures": ["ClipCaptionModel"],
        "model_type": MODEL_TYPE,
        "prefix_length": prefix.length,
        "prefix_size": prefix.projection,
        "normalize_prefix": prefix.is_normalized,
        "vision_config": image_config(model),
        "gpt": match &model.decoder {
            TextDecoderConfig::Gpt2(gpt2) => gpt2.to_hf(),
            TextDecoderConfig::Bert(bert) => bert.to_hf(),
        },
        "eos_token_id": tokens.end,
        "pad_token_id": tokens.pad,
    });
    match prefix.mapper {
        PrefixMapperConfig::Mlp => config["mapping_type"] = "mlp".into(),
        PrefixMapperConfig::Transformer { clip_length, layers } => {
            config["mapping_type"] = "transformer".into();
            config["prefix_length_clip"] = clip_length.into();
            config["num_layers"] = layers.into();
        }
    }
    config
}

/// Writes config and preprocessing of the CLIP beside its weights `clip_file`.
pub(super) fn write_clip_folder(
    clip_file: &Path,
    model: &CaptionerConfig,
    processor: &ImageProcessor,
) -> Result<()> {
    let folder = clip_file.parent().unwrap_or(clip_file);
    std::fs::create_dir_all(folder).map_err(|source| mm_core::Error::io("write", folder, source))?;
    let mut config = image_config(model);
    config["architectures"] = json!(["CLIPVisionModelWithProjection"]);
    if let CaptionerVariant::Prefix(prefix) = model.variant {
        config["projection_dim"] = prefix.projection.into();
    }
    write_json(&folder.join(CONFIG_FILE), &config)?;
    Ok(write_json(&folder.join(PROCESSOR_CONFIG_FILE), &processor.to_json()?)?)
}

fn image_config(model: &CaptionerConfig) -> Value {
    match &model.image {
        ImageTowerConfig::Vit(vit) => vit.to_hf(),
        tower => json!(tower),
    }
}
