//! Human preference by a BLIP that reads image and prompt together.

use super::ScoreHead;
use super::head::HeadSizes;
use crate::reward::{DifferentiableReward, batch_size, check_count};
use crate::{Error, Result, Reward};
use mm_core::DeviceConfig;
use mm_core::checkpoint::TensorLayout;
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_core::nn::{AttentionMask, Context};
use mm_image::RgbImage;
use mm_text::decoder::{BertDecoderConfig, BertEncoder, SpecialTokens, TextDecoderConfig};
use mm_text::{Padding, TokenBatch, Tokenizer};
use mm_vision::{ImageProcessor, ImageTowerSpec, Vit, VitConfig, VitVariant};
use serde_json::Value;
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

/// Mean and standard deviation of the MLP's outputs, by which ImageReward standardizes them.
const MEAN: f64 = 0.16717;
const STD: f64 = 1.03334;

/// The tokens at which prompts are cut, begin and end included.
const MAX_TOKENS: usize = 35;

/// The names of the authors' file, and those that they stand for.
const AUTHORS_NAMES: [(&str, &str); 6] = [
    ("blip.text_encoder.", "text_encoder."),
    ("blip.visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("blip.visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("blip.visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("blip.visual_encoder.norm.", "vision_model.post_layernorm."),
    ("blip.visual_encoder.blocks.", "vision_model.encoder.layers."),
];

/// The parts of the names of a block.
const BLOCK_NAMES: [(&str, &str); 4] = [
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
];

/// ImageReward (Xu et al. 2023, section 3.1, <https://arxiv.org/abs/2304.05977>): BLIP's text encoder reads
/// the image by cross-attention, and an MLP scores its state of `[CLS]`. Scores are standardized: 0 is the
/// mean of the images of the training set.
#[derive(Debug)]
pub struct ImageReward {
    model: Model,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    device: Device,
}

#[derive(Debug)]
struct Model {
    vision: Vit,
    text_encoder: BertEncoder,
    mlp: ScoreHead,
}

impl ImageReward {
    /// Opens a folder or hub name with the authors' weights in `model.safetensors`, under their names or
    /// those of transformers' BLIP, and with config, tokenizer and preprocessing as transformers saves them
    /// for a BLIP of the same sizes.
    ///
    /// # Errors
    /// A file is missing or damaged, or config, weights, tokenizer and preprocessing do not match.
    pub fn open(model: &str, device: &DeviceConfig) -> Result<Self> {
        let folder = HfFolder::open(model)?;
        let config: Value = folder.config()?;
        let wrong = |problem: String| Error::Folder { path: folder.file(CONFIG_FILE), problem };
        let image = VitConfig::from_hf(&config["vision_config"], VitVariant::Blip)
            .map_err(|error| wrong(error.to_string()))?;
        let text =
            BertDecoderConfig::from_blip(&config["text_config"]).map_err(|error| wrong(error.to_string()))?;
        let decoder = TextDecoderConfig::Bert(text.clone());
        let tokenizer = SpecialTokens::from_blip(&config["text_config"]).open_tokenizer(&folder, &decoder)?;
        let positions = MAX_TOKENS.min(text.max_position_embeddings as usize);
        let (file, processor) =
            ImageProcessor::from_folder(&folder.processor_folder(), image.processor_class())?;
        let size = (image.image_size as u32, image.image_size as u32);
        if processor.output_size() != size {
            let ((width, height), (side, _)) = (processor.output_size(), size);
            let problem =
                format!("images become {width} x {height} pixels, but the tower takes {side} x {side}");
            return Err(Error::Folder { path: file, problem });
        }

        let mut weights = folder.weights("model")?;
        weights.retain(|name| !name.ends_with("position_ids"));
        weights.rename(name_of);
        let head = HeadSizes::of(&weights, "mlp.", text.hidden_size);
        let mut vs = VarStore::new(device.resolve()?);
        let make = |path: &Path| -> Result<_> {
            Ok(Model {
                vision: Vit::new(&(path / "vision_model"), image.clone())?,
                text_encoder: BertEncoder::new(&(path / "text_encoder"), &text, image.hidden_size)?,
                mlp: ScoreHead::new(&(path / "mlp"), &head),
            })
        };
        let model = weights.build(&vs, &TensorLayout::HF, make)?;
        vs.freeze();
        Ok(Self {
            model,
            tokenizer: tokenizer.with_context_length(positions)?,
            processor,
            device: vs.device(),
        })
    }

    fn tokens(&self, prompts: &[&str]) -> Result<TokenBatch> {
        Ok(self.tokenizer.encode_batch(prompts, Padding::Longest)?.to_device(self.device))
    }
}

impl Model {
    /// The scores `[N]` of `pixel_values` `[N, 3, S, S]` with `texts` `[N, L]`.
    fn forward(&self, pixel_values: &Tensor, texts: &TokenBatch) -> Result<Tensor> {
        let context =
            Context { states: self.vision.forward_tokens(pixel_values), mask: AttentionMask::none() };
        let states = self.text_encoder.forward(texts, &context); // [N, L, D]
        let scores = self.mlp.forward(&states.f_select(1, 0)?.to_kind(Kind::Float))?;
        Ok((scores - MEAN) / STD)
    }
}

impl Reward for ImageReward {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let pixel_values = self.processor.process_batch(images)?.to_device(self.device);
        let texts = self.tokens(prompts)?;
        let scores = tch::no_grad(|| self.model.forward(&pixel_values, &texts))?;
        Ok(Vec::try_from(scores.to_device(Device::Cpu))?)
    }

    fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
        Some(self)
    }
}

impl DifferentiableReward for ImageReward {
    fn score_pixels(&self, pixels: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        check_count(batch_size(pixels), prompts)?;
        self.model.forward(&self.processor.process_pixels(pixels)?, &self.tokens(prompts)?)
    }
}

/// The name of transformers for a tensor of either spelling.
fn name_of(name: &str) -> String {
    let renamed =
        AUTHORS_NAMES.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
    let renamed = renamed.unwrap_or_else(|| name.to_owned());
    if !renamed.starts_with("vision_model.encoder.layers.") {
        return renamed;
    }
    BLOCK_NAMES.iter().fold(renamed, |name, (from, to)| name.replacen(from, to, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        for (name, expected) in [
            (
                "blip.visual_encoder.blocks.3.attn.proj.bias",
                "vision_model.encoder.layers.3.self_attn.projection.bias",
            ),
            ("blip.visual_encoder.blocks.0.norm2.weight", "vision_model.encoder.layers.0.layer_norm2.weight"),
            ("blip.visual_encoder.norm.weight", "vision_model.post_layernorm.weight"),
            ("blip.text_encoder.embeddings.LayerNorm.bias", "text_encoder.embeddings.LayerNorm.bias"),
            ("mlp.layers.7.bias", "mlp.layers.7.bias"),
            (
                "vision_model.encoder.layers.0.layer_norm1.bias",
                "vision_model.encoder.layers.0.layer_norm1.bias",
            ),
        ] {
            assert_eq!(name_of(name), expected);
        }
    }
}
