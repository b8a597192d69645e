//! Training of a textual inversion (Gal et al. 2022): the vectors of a new token, and nothing else.

use super::templates::{OBJECT, STYLE};
use crate::pipeline::DiffusionPipeline;
use crate::text::ClipTextEncoder;
use crate::textual_inversion::{MAX_VECTORS, TextualInversion};
use crate::{Error, Result};
use mm_core::config::{ConfigError, ConfigFile};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// The name that diffusers' training scripts give the file.
const FILE: &str = "learned_embeds.safetensors";

/// The variable below each text encoder.
const VARIABLE: &str = "new_token_embedding";

/// `[textual_inversion]`: a new token is trained, and the model stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextualInversionConfig {
    /// The token in prompts, a word that the tokenizer does not know, as `<cat-toy>`.
    pub token: String,
    /// A word that is one token, whose vector training begins with.
    pub initializer: String,
    /// The number of vectors that the token stands for.
    #[serde(default = "one")]
    pub vectors: usize,
    /// Where prompts come from.
    #[serde(default)]
    pub prompts: InversionPrompts,
}

fn one() -> usize {
    1
}

/// Where the prompts of a textual inversion come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InversionPrompts {
    /// Sentences as "a photo of a TOKEN": the images need no captions.
    #[default]
    Object,
    /// Sentences as "a painting in the style of TOKEN".
    Style,
    /// The captions of the images, each with the token in it.
    Captions,
}

impl TextualInversionConfig {
    pub(super) fn validate(&self, file: &ConfigFile) -> std::result::Result<(), ConfigError> {
        let error = |key: &str, problem: String| {
            let key = format!("textual_inversion.{key}");
            Err(file.error(&key, format!("`{key}`: {problem}")))
        };
        let is_word =
            |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control());
        if !is_word(&self.token) {
            return error("token", format!("{:?} must be a word without spaces", self.token));
        }
        if !is_word(&self.initializer) {
            return error("initializer", format!("{:?} must be a word", self.initializer));
        }
        if !(1..=MAX_VECTORS as usize).contains(&self.vectors) {
            return error("vectors", format!("must be from 1 to {MAX_VECTORS}, is {}", self.vectors));
        }
        Ok(())
    }

    /// The sentence of the template `index`, counted around; none where prompts are captions.
    pub(super) fn prompt(&self, index: usize) -> Option<String> {
        let templates: &[&str] = match self.prompts {
            InversionPrompts::Object => &OBJECT,
            InversionPrompts::Style => &STYLE,
            InversionPrompts::Captions => return None,
        };
        Some(templates[index % templates.len()].replace("{}", &self.token))
    }

    /// The prompt of a training image with `caption`; `draw` is from 0 to 1. None where the caption does not
    /// have the token.
    pub(super) fn drawn_prompt(&self, draw: f64, caption: Option<String>) -> Option<String> {
        match self.prompts {
            InversionPrompts::Object => self.prompt((draw * OBJECT.len() as f64) as usize),
            InversionPrompts::Style => self.prompt((draw * STYLE.len() as f64) as usize),
            InversionPrompts::Captions => caption.filter(|caption| caption.contains(&self.token)),
        }
    }
}

/// The vectors that are trained.
pub(super) struct Inversion {
    token: String,
    variables: VarStore,
    /// Whether the pipeline has two text encoders.
    has_two: bool,
}

impl Inversion {
    /// Adds the token of `config` to `pipeline`, with vectors that train.
    ///
    /// # Errors
    /// The token is known already, or the initializer is not one token.
    pub(super) fn attach(
        config: &TextualInversionConfig,
        pipeline: DiffusionPipeline,
    ) -> Result<(Self, DiffusionPipeline)> {
        let variables = VarStore::new(pipeline.device);
        let count = config.vectors as i64;
        let vectors = |part: &str, encoder: &ClipTextEncoder| -> Result<Tensor> {
            let ids = encoder.tokenizer.encode_words(&config.initializer)?;
            let &[id] = ids.as_slice() else {
                let (word, count) = (&config.initializer, ids.len());
                return Err(Error::Model(format!(
                    "textual_inversion.initializer: {word:?} is {count} tokens: choose a word that is one"
                )));
            };
            let row = encoder.model.token_table().detach().narrow(0, i64::from(id), 1);
            Ok((variables.root() / part).var_copy(VARIABLE, &row.repeat([count, 1])))
        };
        let first = vectors("text_encoder", &pipeline.text.first)?;
        let second =
            pipeline.text.second.as_ref().map(|encoder| vectors("text_encoder_2", encoder)).transpose()?;
        let tokens = TextualInversion::new(&config.token, first.detach(), None)?.tokens();
        let text = pipeline.text.with_new_tokens(tokens, &first, second.as_ref())?;
        let inversion = Self { token: config.token.clone(), variables, has_two: second.is_some() };
        Ok((inversion, DiffusionPipeline { text, ..pipeline }))
    }

    /// The vectors, by the part of the pipeline.
    pub(super) fn variables(&self) -> &VarStore {
        &self.variables
    }

    /// Writes the file for diffusers into `folder`.
    ///
    /// # Errors
    /// The vectors are not finite, or the file cannot be written.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let mut variables = self.variables.variables();
        let mut vectors = |part: &str| variables.remove(&format!("{part}.{VARIABLE}"));
        let missing = || Error::Model("the textual inversion has no vectors".to_owned());
        let first = vectors("text_encoder").ok_or_else(missing)?;
        let second = self.has_two.then(|| vectors("text_encoder_2").ok_or_else(missing)).transpose()?;
        TextualInversion::new(&self.token, first, second)?.write(&folder.join(FILE))
    }

    /// `variables` of the pipeline, with the vectors as the last rows of the tables of tokens.
    pub(super) fn added_to(
        &self,
        pipeline: &DiffusionPipeline,
        variables: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>> {
        let own = self.variables.variables();
        let extended = |(name, variable): (String, Tensor)| {
            let Some(part) = name.strip_suffix(".text_model.embeddings.token_embedding.weight") else {
                return Ok((name, variable));
            };
            let Some(vectors) = own.get(&format!("{part}.{VARIABLE}")) else { return Ok((name, variable)) };
            let encoder = match &pipeline.text.second {
                Some(second) if part == "text_encoder_2" => second,
                _ => &pipeline.text.first,
            };
            let rows = encoder.config.vocab_size - vectors.size()[0];
            let table = variable.detach().f_narrow(0, 0, rows)?;
            Ok((name, Tensor::f_cat(&[table, vectors.detach()], 0)?))
        };
        variables.into_iter().map(extended).collect()
    }
}
