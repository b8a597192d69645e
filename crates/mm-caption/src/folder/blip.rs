//! transformers' config of a `BlipForConditionalGeneration`.

use super::{Description, SpecialTokens, token_id};
use crate::{CaptionerConfig, CaptionerVariant, Error, Result};
use mm_text::decoder::{BertDecoderConfig, TextDecoderConfig};
use mm_vision::{ImageTowerConfig, VitConfig, VitVariant};
use serde_json::{Value, json};

/// BERT's and BLIP's defaults of special tokens.
const BOS: u32 = 30522;
const SEP: u32 = 102;

/// Reads the config. Captions begin with `bos_token_id` and end with `sep_token_id`; transformers never uses
/// the `eos_token_id`.
pub(super) fn read(config: &Value) -> Result<Description> {
    if let Some(class) = config["architectures"][0].as_str().filter(|class| !class.ends_with("Generation")) {
        return Err(Error::Model(format!(
            "architectures names {class}: the captioner is BlipForConditionalGeneration"
        )));
    }
    let (text, vision) = (&config["text_config"], &config["vision_config"]);
    let image = ImageTowerConfig::Vit(VitConfig::from_hf(vision, VitVariant::Blip)?);
    let decoder = TextDecoderConfig::Bert(BertDecoderConfig::from_blip(text)?);
    let model = CaptionerConfig { image, decoder, variant: CaptionerVariant::Blip };
    let tokens = SpecialTokens {
        start: Some(token_id(text, "bos_token_id").unwrap_or(BOS)),
        end: token_id(text, "sep_token_id").unwrap_or(SEP),
        pad: token_id(text, "pad_token_id").unwrap_or(0),
    };
    Ok(Description { model, tokens })
}

/// Writes the config.
pub(super) fn write(description: &Description) -> Result<Value> {
    let Description { model, tokens } = description;
    let (ImageTowerConfig::Vit(vit), TextDecoderConfig::Bert(bert)) = (&model.image, &model.decoder) else {
        return Err(Error::Model("a BLIP captioner is a ViT with a BERT decoder".to_owned()));
    };
    let mut text = bert.to_blip(vit.hidden_size);
    text["bos_token_id"] = tokens.start.unwrap_or(tokens.end).into();
    text["sep_token_id"] = tokens.end.into();
    text["eos_token_id"] = tokens.end.into();
    text["pad_token_id"] = tokens.pad.into();
    Ok(json!({
        "architectures": ["BlipForConditionalGeneration"],
        "model_type": "blip",
        "text_config": text,
        "vision_config": vit.to_hf(),
        "tie_word_embeddings": true,
    }))
}
