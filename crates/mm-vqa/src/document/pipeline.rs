//! A model that reads documents with its preprocessing and tokenizer: opened from a folder, used, saved.

use super::fields::{DocumentReading, ReadTokens};
use super::folder::{DocumentFolder, FolderParts, TrainedFor};
use super::place::Attention;
use super::spelling::is_tag;
use super::tokens::tag;
use super::{DocumentModel, DocumentModelConfig};
use crate::{Error, Result};
use mm_core::checkpoint::StoredType;
use mm_core::hf::CONFIG_FILE;
use mm_core::{OpenOptions, upload};
use mm_image::RgbImage;
use mm_text::Tokenizer;
use mm_text::decoder::{SpecialTokens, TextDecoderSpec};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_vision::{DocumentProcessor, PagePlacement};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A model that reads documents, with its preprocessing and tokenizer.
#[derive(Debug)]
pub struct DocumentPipeline {
    /// From pages to texts.
    pub model: DocumentModel,
    /// From pages to `pixel_values`.
    pub processor: DocumentProcessor,
    /// The config of the model.
    pub config: DocumentModelConfig,
    /// The schema of the documents that it was trained for, if it is known.
    pub schema: Option<String>,
    /// The token that documents begin with, unless [`DocumentPipeline::read`] is given another.
    pub prompt: u32,
    /// Begin, end and padding of texts.
    pub tokens: SpecialTokens,
    /// From texts to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// The model's defaults of generation.
    pub generation: GenerationConfig,
    /// The device of the model.
    pub device: Device,
}

impl DocumentPipeline {
    /// Opens the model in a folder or of a hub name for inference.
    ///
    /// # Errors
    /// A file is missing or damaged, the architecture is not supported, or config, weights, preprocessing and
    /// tokenizer do not match.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let vs = VarStore::new(options.resolve_device()?);
        let mut pipeline = Self::load(&DocumentFolder::open(model)?, &vs)?;
        options.warn_if_slow(&vs);
        // Otherwise all weights would be in memory twice: packing a layer frees its own.
        drop(vs);
        pipeline.model.pack(options.precision);
        Ok(pipeline)
    }

    /// Builds the model of `folder` on `vs` and fills it.
    ///
    /// # Errors
    /// As [`DocumentPipeline::open`].
    pub fn load(folder: &DocumentFolder, vs: &VarStore) -> Result<Self> {
        let tokenizer = folder.tokenizer()?;
        let (prompt, schema) = folder_prompt(folder, &tokenizer)?;
        Self::with_model(folder.build(vs)?, folder, tokenizer, prompt, schema, vs.device())
    }

    /// As [`DocumentPipeline::load`], for documents of `schema`, with new tokens for those of `tags` that the
    /// tokenizer does not have.
    ///
    /// # Errors
    /// As [`DocumentPipeline::open`], or the schema's own tag is neither there nor among `tags`.
    pub fn load_with_tags(
        folder: &mut DocumentFolder,
        vs: &VarStore,
        schema: &str,
        tags: &BTreeSet<String>,
    ) -> Result<Self> {
        let tokenizer = folder.tokenizer()?;
        let is_new = |tag: &&String| tokenizer.token_id(tag).is_none();
        let new: Vec<String> = tags.iter().filter(is_new).cloned().collect();
        let tokenizer = tokenizer.with_new_tokens(&new)?;
        let model = folder.build_with_vocabulary(vs, tokenizer.vocab_size() as i64)?;
        let name = tag(schema, false);
        let prompt = tokenizer.token_id(&name).ok_or_else(|| unknown_prompt(&name, &tokenizer))?;
        Self::with_model(model, folder, tokenizer, prompt, Some(schema.to_owned()), vs.device())
    }

    fn with_model(
        model: DocumentModel,
        folder: &DocumentFolder,
        tokenizer: Tokenizer,
        prompt: u32,
        schema: Option<String>,
        device: Device,
    ) -> Result<Self> {
        Ok(Self {
            model,
            processor: folder.processor()?,
            config: folder.config.clone(),
            schema,
            prompt,
            tokens: SpecialTokens { start: Some(prompt), ..folder.tokens.clone() },
            tokenizer: Arc::new(tokenizer),
            generation: folder.generation()?,
            device,
        })
    }

    /// The tokens of a `prompt`, as `<s_cord-v2>` or `<s_docvqa><s_question>...</s_question><s_answer>`; the
    /// model's own where none is given.
    ///
    /// # Errors
    /// It does not begin with a tag that is one token, or has characters that the tokenizer has not, or none
    /// is given and the model's folder does not name its own.
    pub fn prompt_tokens(&self, prompt: Option<&str>) -> Result<Vec<u32>> {
        let Some(prompt) = prompt else {
            let own = self.tokenizer.token(self.prompt);
            return match own.as_deref() {
                Some(own) if own.starts_with("<s_") => Ok(vec![self.prompt]),
                _ => {
                    let known = prompts(&self.tokenizer);
                    Err(Error::Model(format!(
                        "the model's folder names no prompt: give one of its schemas' ({known})"
                    )))
                }
            };
        };
        let ids = self.tokenizer.encode_words(prompt)?;
        let first = ids.first().and_then(|&id| self.tokenizer.token(id));
        let is_known = first.is_some_and(|first| is_tag(&first) && prompt.starts_with(&first));
        if !is_known {
            return Err(unknown_prompt(prompt, &self.tokenizer));
        }
        if self.tokenizer.unknown_id().is_some_and(|unknown| ids.contains(&unknown)) {
            return Err(Error::Model(format!("the prompt {prompt:?} has characters that are no tokens")));
        }
        Ok(ids)
    }

    /// The prompt of documents of `schema`.
    ///
    /// # Errors
    /// The model was not trained for it: it has no such token.
    pub fn schema_prompt(&self, schema: &str) -> Result<String> {
        let prompt = tag(schema, false);
        self.prompt_tokens(Some(&prompt))?;
        Ok(prompt)
    }

    /// What the decoder reads of pages of any size: see [`DocumentModel::encode`].
    ///
    /// # Errors
    /// A page has no pixels.
    pub fn encode(&self, pages: &[RgbImage]) -> Result<Tensor> {
        Ok(self.encode_pixels(&self.processor.process_batch(pages)?))
    }

    /// As [`DocumentPipeline::encode`], of pages already resized by the processor.
    ///
    /// # Errors
    /// The pages differ in size.
    pub fn encode_resized(&self, pages: &[RgbImage]) -> Result<Tensor> {
        Ok(self.encode_pixels(&self.processor.normalize_batch(pages)?))
    }

    fn encode_pixels(&self, pixel_values: &Tensor) -> Tensor {
        let pixel_values = upload(pixel_values, self.device);
        mm_sys::inference_mode(|| self.model.encode(&pixel_values))
    }

    /// Reads `pages` of any size, with `prompt` or the model's own. A page is read the same alone and among
    /// others.
    ///
    /// # Errors
    /// As [`DocumentPipeline::prompt_tokens`] and [`mm_text::generate::generate`], or a page has no pixels.
    pub fn read(
        &self,
        pages: &[RgbImage],
        prompt: Option<&str>,
        generation: &GenerationConfig,
    ) -> Result<Vec<DocumentReading>> {
        let prompt = self.prompt_tokens(prompt)?;
        let placements: Vec<PagePlacement> =
            pages.iter().map(|page| self.processor.placement(page.width(), page.height())).collect();
        self.read_encoded(&self.encode(pages)?, &prompt, generation, Some(&placements))
    }

    /// Reads the pages `states` of [`DocumentPipeline::encode`] after the tokens `prompt`. Without
    /// `placements`, one a page, the fields have no places, and the decoder does not run a second time for
    /// them.
    ///
    /// # Errors
    /// As [`mm_text::generate::generate`].
    pub fn read_encoded(
        &self,
        states: &Tensor,
        prompt: &[u32],
        generation: &GenerationConfig,
        placements: Option<&[PagePlacement]>,
    ) -> Result<Vec<DocumentReading>> {
        let prompts: Vec<Prompt> =
            (0..states.size()[0] as u64).map(|seed| Prompt { tokens: prompt.to_vec(), seed }).collect();
        // Longer prompts leave room for less.
        let room = (self.config.decoder.max_length() as usize + 1).saturating_sub(prompt.len()).max(1);
        let max_new_tokens = generation.max_new_tokens.min(room);
        let min_new_tokens = generation.min_new_tokens.min(max_new_tokens);
        let generation = GenerationConfig { max_new_tokens, min_new_tokens, ..generation.clone() };
        let texts = self.model.generate(states, &prompts, &generation, &[self.tokens.end])?;
        let reading = |(page, mut texts): (usize, Vec<Hypothesis>)| {
            let hypothesis = if texts.is_empty() { Hypothesis::default() } else { texts.swap_remove(0) };
            let placement = placements.and_then(|placements| placements.get(page));
            let attention = placement
                .and_then(|_| self.attention(&states.narrow(0, page as i64, 1), prompt, &hypothesis));
            let read = ReadTokens {
                tokenizer: &self.tokenizer,
                prompt,
                hypothesis: &hypothesis,
                silent: &[self.tokens.end, self.tokens.pad],
            };
            DocumentReading::new(&read, attention.as_ref().zip(placement))
        };
        texts.into_iter().enumerate().map(reading).collect()
    }

    /// What each token of a text looked at: a token is chosen at the position before it.
    fn attention(&self, states: &Tensor, prompt: &[u32], text: &Hypothesis) -> Option<Attention> {
        let (_, before) = text.tokens.split_last()?;
        let ids: Vec<i64> = prompt.iter().chain(before).map(|&id| i64::from(id)).collect();
        let ids = upload(&Tensor::from_slice(&ids).unsqueeze(0), self.device);
        let blocks = mm_sys::inference_mode(|| self.model.forward_with_context_weights(states, &ids).1);
        Some(Attention::new(&blocks, text.tokens.len() as i64, &self.config.encoder))
    }

    /// Writes the model, with its `variables` by name, to the existing `folder`, which transformers opens as
    /// well.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, variables: Vec<(String, Tensor)>, folder: &Path, dtype: StoredType) -> Result<()> {
        self.parts().save(variables, folder, dtype)
    }

    /// Writes what a checkpoint needs beside its weights to open as a model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save_description(&self, folder: &Path) -> Result<()> {
        self.parts().save_config(folder, StoredType::F32)
    }

    fn parts(&self) -> FolderParts<'_> {
        let prompt = self.tokenizer.token(self.prompt).unwrap_or_default();
        FolderParts {
            config: &self.config,
            tokens: &self.tokens,
            trained_for: TrainedFor { prompt, schema: self.schema.clone() },
            tokenizer: &self.tokenizer,
            processor: &self.processor,
            generation: &self.generation,
        }
    }
}

/// The prompt of the model in `folder`, and its schema. Published folders have no prompt of their own; their
/// first token is it in those that were trained for one schema.
fn folder_prompt(folder: &DocumentFolder, tokenizer: &Tokenizer) -> Result<(u32, Option<String>)> {
    let Some(TrainedFor { prompt, schema }) = &folder.trained_for else {
        return Ok((folder.tokens.start.unwrap_or(folder.tokens.end), None));
    };
    let token = tokenizer.token_id(prompt);
    let token =
        token.ok_or_else(|| unknown_prompt(prompt, tokenizer).at(&folder.folder.file(CONFIG_FILE)))?;
    Ok((token, schema.clone()))
}

/// The error of a prompt that is no token.
fn unknown_prompt(prompt: &str, tokenizer: &Tokenizer) -> Error {
    let known = prompts(tokenizer);
    Error::Model(format!("the model was not trained for {prompt}: its tokenizer has {known}"))
}

/// The prompts of `tokenizer`: tags that nothing closes.
fn prompts(tokenizer: &Tokenizer) -> String {
    let is_prompt = |token: &String| {
        let name = token.strip_prefix("<s_").and_then(|name| name.strip_suffix('>'));
        name.is_some_and(|name| tokenizer.token_id(&tag(name, true)).is_none())
    };
    let ids = 0..tokenizer.vocab_size() as u32;
    let known: Vec<String> = ids.filter_map(|id| tokenizer.token(id)).filter(is_prompt).collect();
    if known.is_empty() { "no prompts".to_owned() } else { known.join(", ") }
}
