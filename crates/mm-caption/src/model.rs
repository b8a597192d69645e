//! The captioner: an image tower, and a decoder that reads it.

use crate::prefix::{PrefixMapper, PrefixedDecoder, linear_std};
use crate::{CaptionerConfig, CaptionerVariant, Result};
use mm_core::Precision;
use mm_core::nn::{AttentionMask, Context, Embedding, Linear};
use mm_text::decoder::{NextTokens, TextDecoder};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt, generate, generate_stream};
use mm_vision::{ImageTower, ImageTowerConfig};
use std::ops::ControlFlow;
use tch::Tensor;
use tch::nn::Path;

/// A model from images to captions. Parameters are named as in the checkpoints of its
/// [`CaptionerVariant`].
#[derive(Debug)]
pub struct Captioner {
    tower: Box<dyn ImageTower>,
    connector: Connector,
    decoder: Box<dyn TextDecoder>,
}

/// From the outputs of the image tower to what the decoder reads.
#[derive(Debug)]
enum Connector {
    /// The tokens as they are.
    Tokens,
    /// The tokens in the width of the decoder.
    Projected(Linear),
    /// The regions of a feature map in the width of the decoder, each with a learned position: a ResNet's
    /// features do not tell where they are.
    Grid { projection: Linear, positions: Embedding },
    /// Vectors before the caption, from the CLIP embedding of the image.
    Prefix { projection: Linear, is_normalized: bool, mapper: PrefixMapper },
}

/// Standard deviation of the projection's initial weights, that of transformers' models.
const INIT_STD: f64 = 0.02;

impl Captioner {
    /// Creates the captioner's parameters below `path`.
    ///
    /// # Errors
    /// As [`CaptionerConfig::validate`].
    pub fn new(path: &Path, config: &CaptionerConfig) -> Result<Self> {
        config.validate()?;
        let tower = config.image.build(&(path / config.image_root()))?;
        let (from, to) = (tower.tokens_width(), config.decoder.width());
        let connector = match config.variant {
            CaptionerVariant::Blip => Connector::Tokens,
            CaptionerVariant::EncoderDecoder if !has_positions(&config.image) => {
                let side = config.image.token_grid().side;
                Connector::Grid {
                    projection: Linear::new(&(path / "enc_to_dec_proj"), from, to, linear_std(from)),
                    positions: Embedding::new(&(path / "enc_to_dec_positions"), side * side, to, INIT_STD),
                }
            }
            CaptionerVariant::EncoderDecoder if from == to => Connector::Tokens,
            CaptionerVariant::EncoderDecoder => {
                Connector::Projected(Linear::new(&(path / "enc_to_dec_proj"), from, to, INIT_STD))
            }
            CaptionerVariant::Prefix(prefix) => {
                let (width, projected) = (tower.output_width(), prefix.projection);
                let path_to = path / "visual_projection";
                Connector::Prefix {
                    projection: Linear::without_bias(&path_to, width, projected, linear_std(width)),
                    is_normalized: prefix.is_normalized,
                    mapper: PrefixMapper::new(&(path / "clip_project"), &prefix, to),
                }
            }
        };
        let decoder = config.decoder.build(&(path / config.decoder_root()), config.context_width(from))?;
        Ok(Self { tower, connector, decoder })
    }

    /// What the decoder reads of `pixel_values` `[B, 3, H, W]`: states for cross-attention `[B, S, width]`,
    /// or a prefix `[B, P, width]`. `train` is the training mode of the tower.
    pub fn encode(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.connect(&self.tower_outputs(pixel_values, train))
    }

    /// The outputs of the image tower that [`Captioner::connect`] takes: tokens `[B, S, C]`, or pooled `[B,
    /// C]` where the decoder reads a prefix.
    pub fn tower_outputs(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        match &self.connector {
            Connector::Tokens | Connector::Projected(_) | Connector::Grid { .. } => {
                self.tower.forward_tokens(pixel_values, train)
            }
            Connector::Prefix { .. } => self.tower.forward(pixel_values, train),
        }
    }

    /// Maps outputs of the image tower to what the decoder reads.
    pub fn connect(&self, outputs: &Tensor) -> Tensor {
        match &self.connector {
            Connector::Tokens => outputs.shallow_clone(),
            Connector::Projected(projection) => projection.forward(outputs),
            Connector::Grid { projection, positions } => projection.forward(outputs) + positions.weight(),
            Connector::Prefix { projection, is_normalized, mapper } => {
                let mut embeddings = projection.forward(outputs);
                if *is_normalized {
                    embeddings = &embeddings / embeddings.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true);
                }
                mapper.forward(&embeddings)
            }
        }
    }

    /// The decoder's outputs `[B, P + L, D]` for `input_ids` `[B, L]` after the image `states` of
    /// [`Captioner::encode`]; P is the length of the prefix, 0 for cross-attention. With `B / G` captions an
    /// image, `states` has a row for each image: captions `i B / G` to `(i + 1) B / G` are of image `i`.
    pub fn outputs(&self, states: &Tensor, input_ids: &Tensor) -> Tensor {
        match &self.connector {
            Connector::Prefix { .. } => {
                let repeats = input_ids.size()[0] / states.size()[0].max(1);
                let prefix = states.repeat_interleave_self_int(repeats, 0, None);
                let tokens = self.decoder.embed_tokens(input_ids);
                self.decoder.forward_vectors(&Tensor::cat(&[prefix, tokens], 1), None)
            }
            Connector::Tokens | Connector::Projected(_) | Connector::Grid { .. } => {
                self.decoder.forward(input_ids, Some(&context(states)))
            }
        }
    }

    /// The logits `[N, vocab]` of the tokens that `next` has labels for.
    pub fn next_token_logits(&self, states: &Tensor, next: &NextTokens) -> Tensor {
        self.decoder.logits(&next.select(&self.outputs(states, &next.input_ids)))
    }

    /// The logits `[B, P + L, vocab]` of all positions.
    pub fn logits(&self, states: &Tensor, input_ids: &Tensor) -> Tensor {
        self.decoder.logits(&self.outputs(states, input_ids))
    }

    /// Generates captions for each row of `states`, of one prompt each; see [`generate`].
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
        Ok(match &self.connector {
            Connector::Prefix { .. } => {
                let decoder = PrefixedDecoder::new(self.decoder.as_ref(), states.shallow_clone());
                generate(&decoder, None, prompts, config, eos)?
            }
            Connector::Tokens | Connector::Projected(_) | Connector::Grid { .. } => {
                generate(self.decoder.as_ref(), Some(&context(states)), prompts, config, eos)?
            }
        })
    }

    /// Generates one caption for the one row of `states`, token by token; see [`generate_stream`].
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
        Ok(match &self.connector {
            Connector::Prefix { .. } => {
                let decoder = PrefixedDecoder::new(self.decoder.as_ref(), states.shallow_clone());
                generate_stream(&decoder, None, prompt, config, eos, on_token)?
            }
            Connector::Tokens | Connector::Projected(_) | Connector::Grid { .. } => {
                let context = context(states);
                generate_stream(self.decoder.as_ref(), Some(&context), prompt, config, eos, on_token)?
            }
        })
    }

    /// The cross-attention weights of each block `[B, heads, L, S]` for `input_ids` `[B, L]`; none where the
    /// decoder reads a prefix.
    pub fn context_weights(&self, states: &Tensor, input_ids: &Tensor) -> Option<Vec<Tensor>> {
        match &self.connector {
            Connector::Prefix { .. } => None,
            Connector::Tokens | Connector::Projected(_) | Connector::Grid { .. } => {
                Some(self.decoder.forward_with_context_weights(input_ids, &context(states)).1)
            }
        }
    }

    /// The decoder.
    pub fn decoder(&self) -> &dyn TextDecoder {
        self.decoder.as_ref()
    }

    /// Prepares for inference in `precision`. A packed captioner cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.tower.pack(precision);
        match &mut self.connector {
            Connector::Tokens => {}
            Connector::Projected(projection) => projection.pack(precision),
            Connector::Grid { projection, positions } => {
                projection.pack(precision);
                positions.pack(precision);
            }
            Connector::Prefix { projection, mapper, .. } => {
                projection.pack(precision);
                mapper.pack(precision);
            }
        }
        self.decoder.pack(precision);
    }
}

/// Whether the tokens of the tower `image` tell where they are.
fn has_positions(image: &ImageTowerConfig) -> bool {
    matches!(image, ImageTowerConfig::Vit(_))
}

/// `states` `[G, S, width]`, none of which is padding.
fn context(states: &Tensor) -> Context {
    Context { states: states.shallow_clone(), mask: AttentionMask::none() }
}
