//! The model: an image encoder, and a decoder that reads its tokens.

use super::DocumentModelConfig;
use crate::Result;
use mm_core::Precision;
use mm_core::nn::{AttentionMask, Context, Linear};
use mm_text::decoder::{MBartDecoder, TextDecoder};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt, generate, generate_stream};
use mm_vision::Swin;
use std::ops::ControlFlow;
use tch::Tensor;
use tch::nn::Path;

/// Donut (Kim et al. 2022): a Swin transformer that encodes a page, and MBart's decoder that writes its
/// content as a sequence of tags and texts. Parameter names are those of transformers'
/// `VisionEncoderDecoderModel`.
#[derive(Debug)]
pub struct DocumentModel {
    /// From pixels to tokens.
    pub encoder: Swin,
    /// From the encoder's width to the decoder's, where they differ.
    pub enc_to_dec_proj: Option<Linear>,
    /// From the encoder's tokens to texts.
    pub decoder: MBartDecoder,
}

/// Standard deviation of the projection's initial weights at this width.
const INIT_STD: f64 = 0.02;
const INIT_WIDTH: f64 = 768.0;

impl DocumentModel {
    /// Creates the parameters below `path`.
    ///
    /// # Errors
    /// As [`DocumentModelConfig::validate`].
    pub fn new(path: &Path, config: &DocumentModelConfig) -> Result<Self> {
        config.validate()?;
        let (from, to) = (config.encoder.hidden_size(), config.decoder.d_model);
        let std = INIT_STD * (INIT_WIDTH / from as f64).sqrt();
        let projection = || Linear::new(&(path / "enc_to_dec_proj"), from, to, std);
        Ok(Self {
            encoder: Swin::new(&(path / "encoder"), &config.encoder)?,
            enc_to_dec_proj: config.has_projection().then(projection),
            decoder: MBartDecoder::new(&(path / "decoder"), &config.decoder, Some(to))?,
        })
    }

    /// What the decoder reads of `pixel_values` `[B, 3, H, W]`: `[B, S, D]`, S tokens of the encoder's grid,
    /// row by row.
    pub fn encode(&self, pixel_values: &Tensor) -> Tensor {
        let states = self.encoder.forward(pixel_values);
        match &self.enc_to_dec_proj {
            Some(projection) => projection.forward(&states),
            None => states,
        }
    }

    /// The decoder's outputs `[B, L, D]` for `input_ids` `[B, L]` about the pages `states` of
    /// [`DocumentModel::encode`]. Padding on the right changes no other position.
    pub fn forward(&self, states: &Tensor, input_ids: &Tensor) -> Tensor {
        self.decoder.forward(input_ids, Some(&context(states)))
    }

    /// As [`DocumentModel::forward`], also giving the cross-attention weights of each block `[B, heads, L,
    /// S]`.
    pub fn forward_with_context_weights(&self, states: &Tensor, input_ids: &Tensor) -> (Tensor, Vec<Tensor>) {
        self.decoder.forward_with_context_weights(input_ids, &context(states))
    }

    /// Maps outputs of the decoder `[..., D]` to logits `[..., vocab]`.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.decoder.logits(hidden)
    }

    /// Generates texts for each row of `states`, of one prompt each; see [`generate`].
    ///
    /// # Errors
    /// As [`generate`].
    pub fn generate(
        &self,
        states: &Tensor,
        prompts: &[Prompt],
        config: &GenerationConfig,
        eos: &[u32],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        Ok(generate(&self.decoder, Some(&context(states)), prompts, config, eos)?)
    }

    /// Generates the text of the one row of `states`, token by token; see [`generate_stream`].
    ///
    /// # Errors
    /// As [`generate_stream`].
    pub fn generate_stream(
        &self,
        states: &Tensor,
        prompt: &Prompt,
        config: &GenerationConfig,
        eos: &[u32],
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Hypothesis> {
        Ok(generate_stream(&self.decoder, Some(&context(states)), prompt, config, eos, on_token)?)
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.encoder.pack(precision);
        self.enc_to_dec_proj.iter_mut().for_each(|projection| projection.pack(precision));
        self.decoder.pack(precision);
    }
}

/// `states` `[G, S, width]`, none of which is padding.
fn context(states: &Tensor) -> Context {
    Context { states: states.shallow_clone(), mask: AttentionMask::none() }
}
