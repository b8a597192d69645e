//! transformers' config of a `VisionEncoderDecoderModel`.

use super::Description;
use crate::{CaptionerConfig, CaptionerVariant, Error, Result};
use mm_core::checkpoint::Weights;
use mm_text::decoder::{BertDecoderConfig, Gpt2Config, SpecialTokens, TextDecoderConfig, token_id};
use mm_vision::{ImageTowerConfig, VitConfig, VitVariant};
use serde_json::{Value, json};

/// The `model_type` of an image tower that transformers has no class for: a ResNet as in torchvision or of
/// CLIP, with its config in `tower`.
const OWN_TOWER: &str = "mm_image_tower";

/// Reads the config, and renames `weights` where files of one family have several forms of names.
pub(super) fn read(config: &Value, generation: &Value, weights: &mut Weights) -> Result<Description> {
    let (encoder, decoder) = (&config["encoder"], &config["decoder"]);
    let image = match encoder["model_type"].as_str() {
        Some("vit") => {
            let mut vit = VitConfig::from_hf(encoder, VitVariant::Vit)?;
            vit.pooler = weights.has_prefix("encoder.pooler.");
            ImageTowerConfig::Vit(vit)
        }
        Some("clip_vision_model") => {
            weights.rename(|name| name.replacen("encoder.vision_model.", "encoder.", 1));
            ImageTowerConfig::Vit(VitConfig::from_hf(encoder, VitVariant::Clip)?)
        }
        Some("blip_vision_model") => ImageTowerConfig::Vit(VitConfig::from_hf(encoder, VitVariant::Blip)?),
        Some(OWN_TOWER) => serde_json::from_value(encoder["tower"].clone())
            .map_err(|error| Error::Model(format!("encoder.tower: {error}")))?,
        other => {
            let other = other.unwrap_or("missing");
            return Err(Error::Model(format!(
                "the encoder's model_type is {other}: offered are vit, clip_vision_model, blip_vision_model"
            )));
        }
    };
    let decoder_config = match decoder["model_type"].as_str() {
        Some("gpt2") => TextDecoderConfig::Gpt2(Gpt2Config::from_hf(decoder)?),
        Some("bert") => TextDecoderConfig::Bert(BertDecoderConfig::from_hf(decoder)?),
        other => {
            let other = other.unwrap_or("missing");
            return Err(Error::Model(format!(
                "the decoder's model_type is {other}: offered are gpt2 and bert"
            )));
        }
    };
    let model = CaptionerConfig { image, decoder: decoder_config, variant: CaptionerVariant::EncoderDecoder };
    // In the order in which transformers looks for them.
    let find = |names: &[&str]| {
        let sources = [generation, config, decoder];
        names.iter().find_map(|name| sources.iter().find_map(|source| token_id(source, name)))
    };
    let missing = |name: &str| Error::Model(format!("no {name} in config.json or generation_config.json"));
    let end = find(&["eos_token_id"]).ok_or_else(|| missing("eos_token_id"))?;
    let tokens = SpecialTokens {
        start: Some(
            find(&["decoder_start_token_id", "bos_token_id"])
                .ok_or_else(|| missing("decoder_start_token_id"))?,
        ),
        end,
        pad: find(&["pad_token_id"]).unwrap_or(end),
    };
    Ok(Description { model, tokens })
}

/// Writes the config.
pub(super) fn write(description: &Description) -> Value {
    let Description { model, tokens } = description;
    let encoder = match &model.image {
        ImageTowerConfig::Vit(vit) => vit.to_hf(),
        tower => json!({ "model_type": OWN_TOWER, "tower": tower }),
    };
    let mut decoder = match &model.decoder {
        TextDecoderConfig::Gpt2(gpt2) => gpt2.to_hf(),
        TextDecoderConfig::Bert(bert) => bert.to_hf(),
    };
    decoder["is_decoder"] = true.into();
    decoder["add_cross_attention"] = true.into();
    json!({
        "architectures": ["VisionEncoderDecoderModel"],
        "model_type": "vision-encoder-decoder",
        "is_encoder_decoder": true,
        "encoder": encoder,
        "decoder": decoder,
        "decoder_start_token_id": tokens.start,
        "eos_token_id": tokens.end,
        "pad_token_id": tokens.pad,
    })
}
