//! A text encoder with its tokenizer.

use crate::lora::{Component, LoraFile};
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::hf::HfFolder;
use mm_core::nn::Linear;
use mm_text::{ClipText, ClipTextConfig, ClipTextVariant, Padding, T5Config, T5Encoder, Tokenizer};
use serde_json::Value;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// transformers' `CLIPTextModel` or `CLIPTextModelWithProjection`.
#[derive(Debug)]
pub(crate) struct ClipTextEncoder {
    pub model: ClipText,
    pub projection: Option<Linear>,
    pub tokenizer: Tokenizer,
    device: Device,
}

/// The states of some prompts.
pub(crate) struct ClipStates {
    /// Before the first block and after each, `[N, L, D]`.
    pub hidden: Vec<Tensor>,
    /// One vector a prompt, projected where the model has a projection, `[N, P]`.
    pub pooled: Tensor,
    /// `[N, L]`: 0 for padding.
    pub attention_mask: Tensor,
}

impl ClipTextEncoder {
    /// Opens the part `part` of the pipeline in `folder`, with the tokenizer in `tokenizer`, and applies the
    /// LoRAs of `component` with their scales.
    pub(crate) fn open(
        folder: &Path,
        part: &str,
        tokenizer: &str,
        loras: &[(LoraFile, f64)],
        device: Device,
    ) -> Result<Self> {
        let config: Value = HfFolder::at(folder.join(part)).config()?;
        let mut weights = text_weights(folder, part)?;
        let component =
            if part == "text_encoder_2" { Component::TextEncoder2 } else { Component::TextEncoder };
        for (lora, scale) in loras {
            lora.apply(component, &mut weights, *scale)?;
        }
        let projects = weights.shape("text_projection.weight").map(|shape| shape[0] as i64);
        let config = ClipTextConfig::from_hf(&config, ClipTextVariant::Clip)?;
        let tokenizer = Tokenizer::from_dir(&folder.join(tokenizer))?;
        if tokenizer.vocab_size() as i64 > config.vocab_size {
            let (ids, rows) = (tokenizer.vocab_size(), config.vocab_size);
            let problem = format!("its vocabulary has {ids} tokens, the text encoder's table {rows} rows");
            return Err(Error::folder(&folder.join(part), problem));
        }
        let positions = config.max_position_embeddings as usize;
        let tokenizer = tokenizer.within(positions)?;
        let store = VarStore::new(device);
        let (model, projection) = weights.build(&store, &TensorLayout::HF, |path| {
            let model = ClipText::new(&(path / "text_model"), &config)?;
            let projection = projects.map(|width| {
                Linear::without_bias(&(path / "text_projection"), config.hidden_size, width, 0.02)
            });
            Ok::<_, Error>((model, projection))
        })?;
        Ok(Self { model, projection, tokenizer, device })
    }

    /// The states of `prompts`, padded to the context length. A prompt that is longer is cut: see
    /// [`ClipTextEncoder::cut`].
    pub(crate) fn encode(&self, prompts: &[&str]) -> Result<ClipStates> {
        let batch = self.tokenizer.encode_batch(prompts, Padding::Fixed)?.to_device(self.device);
        let hidden = self.model.hidden_states(&batch.input_ids);
        let last = self.model.final_norm(&hidden[hidden.len() - 1]);
        let pooled = self.model.at_end_token(&last, &batch.input_ids);
        let pooled = self.projection.as_ref().map_or(pooled.shallow_clone(), |map| map.forward(&pooled));
        Ok(ClipStates { hidden, pooled, attention_mask: batch.attention_mask })
    }

    /// The end of `prompt` that is beyond the context length, where there is one.
    pub(crate) fn cut(&self, prompt: &str) -> Result<Option<String>> {
        let ids = self.tokenizer.encode_words(prompt)?;
        let kept = self.tokenizer.context_length().saturating_sub(2);
        let beyond = ids.get(kept..).filter(|rest| !rest.is_empty());
        Ok(beyond.map(|rest| self.tokenizer.decode(rest)).transpose()?)
    }

    pub(crate) fn pack(&mut self, precision: Precision) {
        self.model.pack(precision);
        self.projection.iter_mut().for_each(|projection| projection.pack(precision));
    }
}

/// The weights of the text encoder `part` of the pipeline in `folder`, under the names of today's models:
/// without a buffer that old versions of transformers saved, and with the prefix that transformers 5 leaves
/// out of a text model alone.
pub(crate) fn text_weights(folder: &Path, part: &str) -> Result<Weights> {
    let mut weights = HfFolder::at(folder.join(part)).weights("model")?;
    weights.retain(|name| !name.ends_with("position_ids"));
    weights.rename(|name| {
        let has_root = name.starts_with("text_model.") || name.starts_with("text_projection.");
        if has_root { name.to_owned() } else { format!("text_model.{name}") }
    });
    Ok(weights)
}

/// transformers' `T5EncoderModel`.
#[derive(Debug)]
pub(crate) struct T5TextEncoder {
    pub model: T5Encoder,
    pub tokenizer: Tokenizer,
    device: Device,
}

impl T5TextEncoder {
    /// The tokens that SD3's pipeline gives the encoder.
    pub(crate) const LENGTH: usize = 256;

    pub(crate) fn open(folder: &Path, device: Device) -> Result<Self> {
        let files = HfFolder::at(folder.join("text_encoder_3"));
        let config = T5Config::from_hf(&files.config::<Value>()?)?;
        let weights = files.weights("model")?;
        let tokenizer =
            Tokenizer::from_dir(&folder.join("tokenizer_3"))?.with_context_length(Self::LENGTH)?;
        let model = T5Encoder::from_weights(&VarStore::new(device), &config, weights)?;
        Ok(Self { model, tokenizer, device })
    }

    /// The states `[N, 256, D]` of `prompts`. Padding is attended to, as in diffusers.
    pub(crate) fn encode(&self, prompts: &[&str]) -> Result<Tensor> {
        let batch = self.tokenizer.encode_batch(prompts, Padding::Fixed)?.to_device(self.device);
        Ok(self.model.forward(&batch.input_ids, None))
    }

    pub(crate) fn pack(&mut self, precision: Precision) {
        self.model.pack(precision);
    }
}
