//! A text encoder with its tokenizer.

use super::build_below;
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::hf::HfFolder;
use mm_core::nn::Linear;
use mm_text::{
    ClipText, ClipTextConfig, ClipTextVariant, Padding, T5Config, T5Encoder, TokenBatch, Tokenizer,
};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// transformers' `CLIPTextModel` or `CLIPTextModelWithProjection`.
#[derive(Debug)]
pub(crate) struct ClipTextEncoder {
    pub model: ClipText,
    pub projection: Option<Linear>,
    /// Width of the projection's output.
    pub projection_dim: Option<i64>,
    pub tokenizer: Arc<Tokenizer>,
    pub config: ClipTextConfig,
    pub device: Device,
}

/// The states of some prompts.
pub(crate) struct ClipStates {
    /// Before the first block and after each, `[N, L, D]`.
    pub hidden: Vec<Tensor>,
    /// The last of them after the final norm.
    pub last: Tensor,
    /// One vector a prompt, projected where the model has a projection, `[N, P]`.
    pub pooled: Tensor,
    /// `[N, L]`: 0 for padding.
    pub attention_mask: Tensor,
}

impl ClipTextEncoder {
    /// Loads the part `part` of a pipeline from `weights`, stored as `layout` says, below `part` of `vs`.
    pub(crate) fn load(
        vs: &VarStore,
        part: &str,
        config: &Value,
        tokenizer: Tokenizer,
        weights: &mut Weights,
        layout: &TensorLayout,
    ) -> Result<Self> {
        let projection_dim = weights.shape("text_projection.weight").map(|shape| shape[0] as i64);
        let config = ClipTextConfig::from_hf(config, ClipTextVariant::Clip)?;
        if tokenizer.vocab_size() as i64 > config.vocab_size {
            let (ids, rows) = (tokenizer.vocab_size(), config.vocab_size);
            let problem = format!("the tokenizer has {ids} tokens, the table of {part} {rows} rows");
            return Err(Error::Model(problem));
        }
        let tokenizer = tokenizer.within(config.max_position_embeddings as usize)?;
        let (model, projection) = build_below(vs, part, weights, layout, |path| {
            let model = ClipText::new(&(path / "text_model"), &config)?;
            let projection = projection_dim.map(|width| {
                Linear::without_bias(&(path / "text_projection"), config.hidden_size, width, 0.02)
            });
            Ok((model, projection))
        })?;
        let (tokenizer, device) = (Arc::new(tokenizer), vs.device());
        Ok(Self { model, projection, projection_dim, tokenizer, config, device })
    }

    /// A new model below `part` of `vs`, for texts of `tokenizer`.
    pub(crate) fn new(
        vs: &VarStore,
        part: &str,
        config: &ClipTextConfig,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        let tokenizer = tokenizer.within(config.max_position_embeddings as usize)?;
        let model = ClipText::new(&(vs.root() / part / "text_model"), config)?;
        let (tokenizer, device) = (Arc::new(tokenizer), vs.device());
        let config = config.clone();
        Ok(Self { model, projection: None, projection_dim: None, tokenizer, config, device })
    }

    /// The states of `prompts`, padded as `padding` says. A prompt that is too long is cut: see
    /// [`ClipTextEncoder::cut`].
    pub(crate) fn encode(&self, prompts: &[&str], padding: Padding) -> Result<ClipStates> {
        Ok(self.states(&self.tokenizer.encode_batch(prompts, padding)?.to_device(self.device)))
    }

    /// The states of `tokens` `[N, L]`.
    pub(crate) fn states(&self, tokens: &TokenBatch) -> ClipStates {
        let hidden = self.model.hidden_states(&tokens.input_ids);
        let last = self.model.final_norm(&hidden[hidden.len() - 1]);
        let pooled = self.model.at_end_token(&last, &tokens.input_ids);
        let pooled = self.projection.as_ref().map_or(pooled.shallow_clone(), |map| map.forward(&pooled));
        ClipStates { hidden, last, pooled, attention_mask: tokens.attention_mask.shallow_clone() }
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

/// Renames the weights of a text encoder to those of today's models: without a buffer that old versions of
/// transformers saved, and with the prefix that transformers 5 leaves out of a text model alone.
pub(crate) fn rename_text_weights(weights: &mut Weights) {
    weights.retain(|name| !name.ends_with("position_ids"));
    weights.rename(|name| {
        let has_root = name.starts_with("text_model.") || name.starts_with("text_projection.");
        if has_root { name.to_owned() } else { format!("text_model.{name}") }
    });
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

    pub(crate) fn open(folder: &Path, vs: &VarStore) -> Result<Self> {
        let files = HfFolder::at(folder.join("text_encoder_3"));
        let config = T5Config::from_hf(&files.config::<Value>()?)?;
        let weights = files.weights("model")?;
        let tokenizer =
            Tokenizer::from_dir(&folder.join("tokenizer_3"))?.with_context_length(Self::LENGTH)?;
        // In a store of its own: it is never trained.
        let device = vs.device();
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
