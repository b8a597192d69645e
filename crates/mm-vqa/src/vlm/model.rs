//! The model: image tower, connector, decoder.

use super::config::{ConnectorConfig, FeatureSelection, VlmConfig};
use super::connector::Connector;
use super::decoder::VlmDecoder;
use crate::{Error, Result};
use mm_core::Precision;
use mm_text::decoder::{Llama, NextTokens, TextDecoder};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt, generate, generate_stream};
use mm_vision::Vit;
use std::ops::ControlFlow;
use tch::nn::Path;
use tch::{Kind, Tensor};

/// The most tiles that go through the tower at once in inference: a page in tiles needs no more memory.
const TILES_AT_ONCE: i64 = 8;

/// A vision-language model. Parameters have the names of the files of its family in transformers.
///
/// The way of a batch: [`Vlm::image_features`], then [`Vlm::next_token_logits`] in training or
/// [`Vlm::generate`]. Features are given to texts in order: those of the first placeholder first.
#[derive(Debug)]
pub struct Vlm {
    tower: Vit,
    connector: Connector,
    decoder: Llama,
    image_token_id: i64,
    /// The tower's states that are read: those after this block, or its normalized outputs.
    feature_layer: Option<usize>,
    selection: FeatureSelection,
}

impl Vlm {
    /// Creates the model's parameters below `path`.
    ///
    /// # Errors
    /// As [`VlmConfig::validate`].
    pub fn new(path: &Path, config: &VlmConfig) -> Result<Self> {
        config.validate()?;
        let at = |root: &str| root.split('.').fold(path.clone(), |path, name| &path / name);
        let tower_path = at(config.family.tower_root());
        let tower = if config.vision_use_head {
            Vit::new(&tower_path, config.vision.clone())?
        } else {
            Vit::without_head(&tower_path, config.vision.clone())?
        };
        let (vision_width, text_width) = (config.vision.hidden_size, config.text.hidden_size);
        let connector_path = at(config.family.connector_root());
        let connector = Connector::new(&connector_path, &config.connector, vision_width, text_width);
        let (body, head) = (at(config.family.body_root()), at(config.family.head_root()));
        let (feature_layer, selection) = match config.connector {
            ConnectorConfig::PixelShuffle { .. } => (None, FeatureSelection::Full),
            ConnectorConfig::Mlp { selection, .. } => (Some(config.feature_layer()), selection),
        };
        Ok(Self {
            tower: if feature_layer.is_none() { tower.with_bucketed_positions() } else { tower },
            connector,
            decoder: Llama::new(&body, &head, &config.text)?,
            image_token_id: i64::from(config.image_token_id),
            feature_layer,
            selection,
        })
    }

    /// The decoder.
    pub fn decoder(&self) -> &Llama {
        &self.decoder
    }

    /// The vectors of the image tower that [`Vlm::connect`] takes, `[T, N, D_image]`, of tiles `[T, 3, H,
    /// W]`.
    pub fn tower_outputs(&self, pixel_values: &Tensor) -> Tensor {
        let Some(layer) = self.feature_layer else { return self.tower.forward_tokens(pixel_values) };
        let states = self.tower.forward_hidden(pixel_values, layer);
        match self.selection {
            FeatureSelection::Full => states,
            FeatureSelection::Default => states.narrow(1, 1, states.size()[1] - 1),
        }
    }

    /// Maps outputs of the image tower to vectors of the decoder, `[T, tokens, D]`.
    pub fn connect(&self, outputs: &Tensor) -> Tensor {
        self.connector.forward(outputs)
    }

    /// The vectors of tiles `[T, 3, H, W]` in the decoder's width, `[T, tokens, D]`.
    pub fn image_features(&self, pixel_values: &Tensor) -> Tensor {
        self.connect(&self.tower_outputs(pixel_values))
    }

    /// As [`Vlm::image_features`] outside training, some tiles at a time.
    pub fn encode_images(&self, pixel_values: &Tensor) -> Tensor {
        mm_sys::inference_mode(|| {
            let parts = pixel_values.split(TILES_AT_ONCE, 0);
            let features: Vec<Tensor> = parts.iter().map(|tiles| self.image_features(tiles)).collect();
            Tensor::cat(&features, 0)
        })
    }

    /// The embeddings `[B, L, D]` of `input_ids` `[B, L]`, with `features` `[T, tokens, D]` in the places of
    /// the placeholders, in order. None: there are no images.
    ///
    /// # Errors
    /// There are more or fewer placeholders than vectors.
    pub fn merge(&self, input_ids: &Tensor, features: Option<&Tensor>) -> Result<Tensor> {
        let places = input_ids.eq(self.image_token_id).sum(Kind::Int64).int64_value(&[]);
        check_counts(places, features)?;
        Ok(self.merge_counted(input_ids, features))
    }

    /// [`Vlm::merge`] of placeholders and vectors that are as many.
    pub(super) fn merge_counted(&self, input_ids: &Tensor, features: Option<&Tensor>) -> Tensor {
        let vectors = self.decoder.embed_tokens(input_ids);
        match features {
            None => vectors,
            Some(features) => {
                let is_image = input_ids.eq(self.image_token_id).unsqueeze(-1); // [B, L, 1]
                vectors.masked_scatter(&is_image, &features.to_kind(vectors.kind()))
            }
        }
    }

    /// The outputs of the decoder's blocks `[B, L, D]` for `input_ids` `[B, L]` with `features` as in
    /// [`Vlm::merge`], each position seeing those before it. Padding on the right changes no other position.
    ///
    /// # Errors
    /// As [`Vlm::merge`].
    pub fn forward(&self, input_ids: &Tensor, features: Option<&Tensor>) -> Result<Tensor> {
        Ok(self.decoder.forward_vectors(&self.merge(input_ids, features)?, None))
    }

    /// Maps outputs of the decoder's blocks `[..., D]` to logits `[..., vocab]`.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.decoder.logits(hidden)
    }

    /// The logits `[N, vocab]` of the tokens that `next` has labels for.
    ///
    /// # Errors
    /// As [`Vlm::merge`].
    pub fn next_token_logits(&self, next: &NextTokens, features: Option<&Tensor>) -> Result<Tensor> {
        Ok(self.logits(&next.select(&self.forward(&next.input_ids, features)?)))
    }

    /// Texts after `prompts`, whose placeholders stand for `features` `[T, tokens, D]` in order; see
    /// [`generate`].
    ///
    /// # Errors
    /// There are more or fewer placeholders than vectors, or as [`generate`].
    pub fn generate(
        &self,
        features: Option<Tensor>,
        prompts: &[Prompt],
        config: &GenerationConfig,
        eos: &[u32],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        Ok(generate(&self.with_features(features, prompts)?, None, prompts, config, eos)?)
    }

    /// The text of one prompt as [`Vlm::generate`] gives it, token by token; see [`generate_stream`].
    ///
    /// # Errors
    /// As [`Vlm::generate`] and [`generate_stream`].
    pub fn generate_stream(
        &self,
        features: Option<Tensor>,
        prompt: &Prompt,
        config: &GenerationConfig,
        eos: &[u32],
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Hypothesis> {
        let decoder = self.with_features(features, std::slice::from_ref(prompt))?;
        Ok(generate_stream(&decoder, None, prompt, config, eos, on_token)?)
    }

    /// A decoder that reads `features` in the places of the placeholders of `prompts`, for one generation.
    ///
    /// # Errors
    /// There are more or fewer placeholders than vectors.
    pub fn with_features(&self, features: Option<Tensor>, prompts: &[Prompt]) -> Result<VlmDecoder<'_>> {
        let is_image = |token: &&u32| i64::from(**token) == self.image_token_id;
        let places = prompts.iter().flat_map(|prompt| &prompt.tokens).filter(is_image).count();
        check_counts(places as i64, features.as_ref())?;
        Ok(VlmDecoder::new(self, features))
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.tower.pack(precision);
        self.connector.pack(precision);
        TextDecoder::pack(&mut self.decoder, precision);
    }
}

/// Checks that `features` `[T, tokens, D]` fill as many `places`.
fn check_counts(places: i64, features: Option<&Tensor>) -> Result<()> {
    let size = features.map_or_else(|| vec![0, 0], Tensor::size);
    let (tiles, tokens) = (size[0], size[1]);
    if places == tiles * tokens {
        return Ok(());
    }
    Err(Error::Model(format!(
        "the texts have {places} image tokens, but {tiles} tiles of images have {} vectors, {tokens} each: \
         an image without its tokens, or a text that was cut inside an image",
        tiles * tokens
    )))
}
