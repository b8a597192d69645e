//! transformers' config of a `BlipForConditionalGeneration`.

use super::Description;
use crate::{CaptionerConfig, CaptionerVariant, Error, Result};
use mm_text::decoder::{BertDecoderConfig, SpecialTokens, TextDecoderConfig};
use mm_vision::{ImageTowerConfig, VitConfig, VitVariant};
use serde_json::{Value, json};

/// Reads the config.
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
    let tokens = SpecialTokens::from_blip(text);
    Ok(Description { model, tokens })
}

/// Writes the config.
pub(super) fn write(description: &Description) -> Result<Value> {
    let Description { model, tokens } = description;
    let (ImageTowerConfig::Vit(vit), TextDecoderConfig::Bert(bert)) = (&model.image, &model.decoder) else {
        return Err(Error::Model("a BLIP captioner is a ViT with a BERT decoder".to_owned()));
    };
    Ok(json!({
        "architectures": ["BlipForConditionalGeneration"],
        "model_type": "blip",
        "text_config": bert.to_blip(vit.hidden_size, tokens),
        "vision_config": vit.to_hf(),
        "tie_word_embeddings": true,
    }))
}
