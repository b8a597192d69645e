//! A vision-language model with its preprocessing, tokenizer and chat template: opened from a folder, used
//! for answers, saved.

use super::config::VlmConfig;
use super::folder::{VlmFolder, VlmParts};
use super::model::Vlm;
use super::processor::{ImageSplitting, VlmProcessor};
use crate::{Error, Result};
use mm_core::checkpoint::StoredType;
use mm_core::nn::matrices_in;
use mm_core::{OpenOptions, upload};
use mm_image::RgbImage;
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_text::{ChatMessage, ChatTemplate, Tokenizer};
use mm_vision::ImageTiles;
use rayon::prelude::*;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A vision-language model with its preprocessing, tokenizer and chat template.
#[derive(Debug)]
pub struct VlmPipeline {
    /// From tiles and tokens to the next token.
    pub model: Vlm,
    /// The config of the model.
    pub config: VlmConfig,
    /// From texts to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// From images and texts with placeholders to tiles and tokens.
    pub processor: VlmProcessor,
    /// From messages to texts; none for a model without a template.
    pub template: Option<Arc<ChatTemplate>>,
    /// The model's defaults of generation.
    pub generation: GenerationConfig,
    /// The tokens that end a text.
    pub eos: Vec<u32>,
    /// Padding.
    pub pad: u32,
    /// The device of the model.
    pub device: Device,
}

/// A prompt with its images, as the model reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VlmInputs {
    /// Tokens, with all placeholders of the images.
    pub input_ids: Vec<u32>,
    /// The tiles of the images in order, 8-bit.
    pub tiles: Vec<RgbImage>,
}

/// A generated answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VlmAnswer {
    /// The text, without the prompt and special tokens.
    pub text: String,
    /// Its score; see [`Hypothesis::score`].
    pub score: f32,
    /// Whether it ended by itself; otherwise it was cut at `max_new_tokens`.
    pub finished: bool,
    /// Its tokens, the end token included.
    #[serde(skip)]
    pub tokens: Vec<u32>,
    /// The logarithm of each token's probability, before rules and temperature.
    #[serde(skip)]
    pub log_probs: Vec<f32>,
}

impl VlmPipeline {
    /// Opens the model in a folder or of a hub name for inference. Images are not split into tiles
    /// ([`ImageSplitting`]) unless [`VlmPipeline::set_splitting`] says so. In bf16 the weights are never in
    /// memory in f32.
    ///
    /// # Errors
    /// A file is missing or damaged, the architecture is not supported, or config, weights, tokenizer and
    /// preprocessing do not match.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let vs = VarStore::new(options.resolve_device()?);
        let folder = VlmFolder::open(model)?;
        let mut pipeline = matrices_in(options.precision.kind(), || Self::load(&folder, &vs))?;
        options.warn_if_slow(&vs);
        // Otherwise all weights would be in memory twice: packing a layer frees its own.
        drop(vs);
        // One row goes through large matrices in each step: packed weights are faster in f32 too.
        pipeline.model.pack(options.precision);
        Ok(pipeline)
    }

    /// Builds the model of `folder` on `vs` and fills it.
    ///
    /// # Errors
    /// As [`VlmPipeline::open`].
    pub fn load(folder: &VlmFolder, vs: &VarStore) -> Result<Self> {
        let parts = folder.parts()?;
        let model = folder.build(vs, |path| Vlm::new(path, &folder.config))?;
        Ok(Self::new(model, folder.config.clone(), parts, vs.device()))
    }

    /// A pipeline of a model of `config` on `device` and its parts.
    pub fn new(model: Vlm, config: VlmConfig, parts: VlmParts, device: Device) -> Self {
        let VlmParts { tokenizer, processor, template, generation, eos, pad } = parts;
        Self { model, config, tokenizer, processor, template, generation, eos, pad, device }
    }

    /// Sets whether images are split into tiles.
    pub fn set_splitting(&mut self, splitting: ImageSplitting) {
        self.processor.splitting = splitting;
    }

    /// The prompt of a conversation, up to where the answer begins, in the form of the model's chat template.
    /// `images` are those of its [`ChatPart::Image`](mm_text::ChatPart::Image)s, in order.
    ///
    /// # Errors
    /// The model has no template, the template refuses the messages, their images are more or fewer than
    /// `images`, an image is empty or too large, or the tokenizer does not cover the text.
    pub fn prompt(&self, messages: &[ChatMessage], images: &[RgbImage]) -> Result<VlmInputs> {
        let template = self.template.as_ref().ok_or_else(|| {
            Error::Model(format!(
                "the model has no chat template: write the prompt as a text with {} for each image",
                self.processor.image_token()
            ))
        })?;
        self.prompt_text(&template.render(messages, true)?, images)
    }

    /// The prompt `text`, which has one placeholder ([`VlmProcessor::image_token`]) for each of `images`.
    ///
    /// # Errors
    /// As [`VlmPipeline::prompt`].
    pub fn prompt_text(&self, text: &str, images: &[RgbImage]) -> Result<VlmInputs> {
        let processor = &self.processor;
        let images: Vec<ImageTiles> =
            images.par_iter().map(|image| processor.tiles(image)).collect::<Result<_>>()?;
        let input_ids = self.processor.encode(&self.tokenizer, text, &images)?;
        Ok(VlmInputs { input_ids, tiles: images.into_iter().flat_map(|image| image.tiles).collect() })
    }

    /// The vectors `[T, tokens, D]` of all tiles of `inputs` in order; none without images.
    ///
    /// # Errors
    /// A tile has another size than the processor makes.
    pub fn features(&self, inputs: &[VlmInputs]) -> Result<Option<Tensor>> {
        let parts: Vec<Tensor> = inputs
            .iter()
            .filter(|inputs| !inputs.tiles.is_empty())
            .map(|inputs| self.processor.normalize_batch(&inputs.tiles))
            .collect::<Result<_>>()?;
        if parts.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.model.encode_images(&upload(&Tensor::cat(&parts, 0), self.device))))
    }

    /// Answers to `inputs`, the best first for each; input `i` draws by the seed `i`. An input without an
    /// image may stand beside others.
    ///
    /// # Errors
    /// The tokens and images of an input do not fit, or as [`mm_text::generate::generate`].
    pub fn generate(&self, inputs: &[VlmInputs], config: &GenerationConfig) -> Result<Vec<Vec<VlmAnswer>>> {
        inputs.iter().try_for_each(|inputs| self.check(inputs))?;
        let prompts = inputs.iter().zip(0..);
        let prompts: Vec<Prompt> =
            prompts.map(|(inputs, seed)| Prompt { tokens: inputs.input_ids.clone(), seed }).collect();
        let texts = self.model.generate(self.features(inputs)?, &prompts, config, &self.eos)?;
        texts.into_iter().map(|texts| texts.into_iter().map(|text| self.answer(text)).collect()).collect()
    }

    /// Checks that one input has as many image tokens as its own tiles need, so that no image goes into
    /// another's prompt.
    pub(super) fn check(&self, inputs: &VlmInputs) -> Result<()> {
        let places = inputs.input_ids.iter().filter(|&&id| id == self.config.image_token_id).count();
        let (tiles, tokens) = (inputs.tiles.len(), self.processor.tile_tokens());
        if places == tiles * tokens {
            return Ok(());
        }
        Err(Error::Model(format!(
            "a prompt has {places} image tokens for {tiles} tiles of images, which need {tokens} each"
        )))
    }

    /// `hypothesis` as a text.
    pub(super) fn answer(&self, hypothesis: Hypothesis) -> Result<VlmAnswer> {
        let Hypothesis { tokens, log_probs, score, finished } = hypothesis;
        Ok(VlmAnswer { text: self.tokenizer.decode(&tokens)?, score, finished, tokens, log_probs })
    }

    /// What stands beside the config and the weights.
    pub fn parts(&self) -> VlmParts {
        VlmParts {
            tokenizer: Arc::clone(&self.tokenizer),
            processor: self.processor.clone(),
            template: self.template.clone(),
            generation: self.generation.clone(),
            eos: self.eos.clone(),
            pad: self.pad,
        }
    }

    /// Writes the model, with its `variables` by name, to the existing `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, variables: Vec<(String, Tensor)>, folder: &Path, dtype: StoredType) -> Result<()> {
        self.config.save(variables, &self.parts(), folder, dtype)
    }

    /// Writes what a checkpoint needs beside its weights to open as a model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_description(&self, folder: &Path) -> Result<()> {
        self.config.save_config(&self.parts(), folder, StoredType::F32)
    }
}
