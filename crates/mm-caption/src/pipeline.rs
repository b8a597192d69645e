//! A captioner with its preprocessing and tokenizer: opened from a folder, used for captions, saved.

use crate::folder::{CaptionerFolder, Description};
use crate::{Captioner, Result};
use mm_core::checkpoint::StoredType;
use mm_core::{OpenOptions, upload};
use mm_image::RgbImage;
use mm_text::Tokenizer;
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_vision::ImageProcessor;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A captioner with its preprocessing and tokenizer.
#[derive(Debug)]
pub struct CaptionPipeline {
    /// From images to captions.
    pub captioner: Captioner,
    /// The config of the model and its special tokens.
    pub description: Description,
    /// From texts to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// From images to `pixel_values`.
    pub processor: ImageProcessor,
    /// The model's defaults of generation.
    pub generation: GenerationConfig,
    /// The device of the model.
    pub device: Device,
}

/// A caption of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Caption {
    /// The text, prompt included.
    pub caption: String,
    /// Its score; see [`Hypothesis::score`].
    pub score: f32,
    /// Whether it ended by itself; otherwise it was cut at `max_new_tokens`.
    pub finished: bool,
    /// The cosine of image and caption by a CLIP, where the captions were ordered by one: see
    /// [`SetCaptioner::rerank`](crate::SetCaptioner::rerank).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_score: Option<f32>,
    /// The generated tokens as text, each with its probability.
    pub tokens: Vec<CaptionToken>,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaptionToken {
    /// Its number in the vocabulary.
    #[serde(skip)]
    pub id: u32,
    /// As the vocabulary has it.
    pub token: String,
    /// Its probability, before rules and temperature.
    pub probability: f32,
}

impl CaptionPipeline {
    /// Opens the captioner in a folder or of a hub name for inference.
    ///
    /// # Errors
    /// A file is missing or damaged, the architecture is not supported, or config, weights and tokenizer do
    /// not match.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let vs = VarStore::new(options.resolve_device()?);
        let mut pipeline = Self::load(&CaptionerFolder::open(model)?, &vs)?;
        options.warn_if_slow(&vs);
        // Otherwise all weights would be in memory twice: packing a layer frees its own.
        drop(vs);
        // Few rows go through large matrices in each step: packed weights are faster in f32 too.
        pipeline.captioner.pack(options.precision);
        Ok(pipeline)
    }

    /// Builds the captioner of `folder` on `vs` and fills it.
    ///
    /// # Errors
    /// As [`CaptionPipeline::open`].
    pub fn load(folder: &CaptionerFolder, vs: &VarStore) -> Result<Self> {
        Ok(Self {
            captioner: folder.build(vs)?,
            description: folder.description.clone(),
            tokenizer: Arc::new(folder.tokenizer()?),
            processor: folder.processor()?,
            generation: folder.generation()?,
            device: vs.device(),
        })
    }

    /// The prompt of captions that begin with `text`, with the seed of its draws.
    ///
    /// # Errors
    /// The tokenizer does not cover the text.
    pub fn prompt(&self, text: &str, seed: u64) -> Result<Prompt> {
        let mut tokens: Vec<u32> = self.description.tokens.start.into_iter().collect();
        tokens.extend(self.tokenizer.encode_words(text)?);
        Ok(Prompt { tokens, seed })
    }

    /// Prompts that begin with `text`, one for each of `seeds`.
    ///
    /// # Errors
    /// As [`CaptionPipeline::prompt`].
    pub fn prompts(&self, text: &str, seeds: impl IntoIterator<Item = u64>) -> Result<Vec<Prompt>> {
        let prompt = self.prompt(text, 0)?;
        Ok(seeds.into_iter().map(|seed| Prompt { seed, ..prompt.clone() }).collect())
    }

    /// What the decoder reads of images of any size: see [`Captioner::encode`].
    ///
    /// # Errors
    /// An image has no pixels.
    pub fn encode(&self, images: &[RgbImage]) -> Result<Tensor> {
        Ok(self.encode_pixels(&self.processor.process_batch(images)?))
    }

    /// As [`CaptionPipeline::encode`], of images already resized by the processor.
    ///
    /// # Errors
    /// The images differ in size.
    pub fn encode_resized(&self, images: &[RgbImage]) -> Result<Tensor> {
        Ok(self.encode_pixels(&self.processor.normalize_batch(images)?))
    }

    fn encode_pixels(&self, pixel_values: &Tensor) -> Tensor {
        let pixel_values = upload(pixel_values, self.device);
        mm_sys::inference_mode(|| self.captioner.encode(&pixel_values, false))
    }

    /// Captions for the images `states` of [`CaptionPipeline::encode`], a prompt for each: the texts of each
    /// image, the best first.
    ///
    /// # Errors
    /// As [`mm_text::generate::generate`].
    pub fn generate(
        &self,
        states: &Tensor,
        prompts: &[Prompt],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        self.captioner.generate(states, prompts, config, &[self.description.tokens.end])
    }

    /// Captions of `images`, all of which begin with `prompt`; image `i` draws by the seed `i`.
    ///
    /// # Errors
    /// An image has no pixels, or as [`CaptionPipeline::generate`].
    pub fn caption(
        &self,
        images: &[RgbImage],
        prompt: &str,
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Caption>>> {
        let prompts = self.prompts(prompt, 0..images.len() as u64)?;
        let states = self.encode(images)?;
        let texts = self.generate(&states, &prompts, config)?;
        texts.into_iter().zip(&prompts).map(|(texts, prompt)| self.captions(prompt, &texts)).collect()
    }

    /// `hypotheses` after `prompt` as texts.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn captions(&self, prompt: &Prompt, hypotheses: &[Hypothesis]) -> Result<Vec<Caption>> {
        let caption = |hypothesis: &Hypothesis| {
            let ids: Vec<u32> = prompt.tokens.iter().chain(&hypothesis.tokens).copied().collect();
            let tokens = hypothesis.tokens.iter().zip(&hypothesis.log_probs).map(|(&id, log_prob)| {
                let token = self.tokenizer.token(id).unwrap_or_else(|| id.to_string());
                CaptionToken { id, token, probability: log_prob.exp() }
            });
            Ok(Caption {
                caption: self.tokenizer.decode(&ids)?,
                score: hypothesis.score,
                finished: hypothesis.finished,
                clip_score: None,
                tokens: tokens.collect(),
            })
        };
        hypotheses.iter().map(caption).collect()
    }

    /// Writes the model, with its `variables` by name, to the existing `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, variables: Vec<(String, Tensor)>, folder: &Path, dtype: StoredType) -> Result<()> {
        let Self { description, tokenizer, processor, generation, .. } = self;
        description.save(variables, tokenizer, processor, generation, folder, dtype)
    }

    /// Writes what a checkpoint needs beside its weights to open as a model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save_description(&self, folder: &Path) -> Result<()> {
        let Self { description, tokenizer, processor, generation, .. } = self;
        description.save_config(tokenizer, processor, generation, folder, StoredType::F32)
    }
}
