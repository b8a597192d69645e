//! What the folders of all models with a decoder have in common: special tokens, defaults of generation, and
//! weights that are stored twice.

use super::TextDecoderConfig;
use crate::generate::GenerationConfig;
use crate::{Error, Result, Tokenizer};
use mm_core::checkpoint::Weights;
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_core::{read_json, write_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The defaults of generation beside a model.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// The tokens that a decoder begins and ends texts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// The token before each text; none behind a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u32>,
    /// The token after each text.
    pub end: u32,
    /// Padding.
    pub pad: u32,
}

impl SpecialTokens {
    /// Opens the tokenizer in `folder` and checks it against the decoder and these tokens.
    ///
    /// # Errors
    /// Its files are missing or malformed, it does not fit the decoder, it has no token `end`, or the decoder
    /// has no embedding for `start`.
    pub fn open_tokenizer(&self, folder: &HfFolder, decoder: &TextDecoderConfig) -> Result<Tokenizer> {
        let path = folder.tokenizer_folder();
        let tokenizer = Tokenizer::for_decoder(&path)?;
        let wrong = |path: PathBuf, reason: String| Err(Error::Format { path, reason });
        if let Err(error) = decoder.check_tokenizer(&tokenizer) {
            return wrong(path, error.to_string());
        }
        // Published tokenizers of BLIP have no begin token, which only the decoder needs.
        if tokenizer.token(self.end).is_none() {
            return wrong(
                path,
                format!(
                    "the tokenizer has no token {}, with which texts end in {CONFIG_FILE}: take the \
                     tokenizer that the model was trained with",
                    self.end
                ),
            );
        }
        let rows = decoder.vocab_size();
        match self.start.filter(|&start| i64::from(start) >= rows) {
            None => Ok(tokenizer),
            Some(start) => wrong(
                folder.file(CONFIG_FILE),
                format!("texts begin with token {start}, and the decoder has {rows} embeddings"),
            ),
        }
    }

    /// Writes transformers' `generation_config.json` with these tokens into the existing `folder`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_generation(&self, generation: &GenerationConfig, folder: &Path) -> Result<()> {
        let mut json = json!(generation);
        if let Some(fields) = json.as_object_mut() {
            fields.remove("seed");
            fields.retain(|_, value| !value.is_null() && *value != json!([]));
        }
        json["eos_token_id"] = self.end.into();
        json["pad_token_id"] = self.pad.into();
        if let Some(start) = self.start {
            json["decoder_start_token_id"] = start.into();
            json["bos_token_id"] = start.into();
        }
        Ok(write_json(&folder.join(GENERATION_CONFIG_FILE), &json)?)
    }
}

impl GenerationConfig {
    /// The defaults of generation in `folder`, for prompts of `prompt_length` tokens: those of
    /// `generation_config.json`, or of the model's `config` where there is no such file.
    ///
    /// # Errors
    /// The file is malformed, or a value out of range.
    pub fn from_folder(folder: &HfFolder, config: &Value, prompt_length: usize) -> Result<Self> {
        let file = folder.file(GENERATION_CONFIG_FILE);
        let (path, config) = if file.exists() {
            let config = read_json(&file)?;
            (file, config)
        } else {
            (folder.file(CONFIG_FILE), config.clone()) // as before generation_config.json
        };
        Self::from_hf(&config, prompt_length)
            .map_err(|error| Error::Format { path, reason: error.to_string() })
    }
}

/// A token id in `config`; a list of them gives its first.
pub fn token_id(config: &Value, name: &str) -> Option<u32> {
    let id = match &config[name] {
        Value::Array(ids) => ids.first()?,
        id => id,
    };
    id.as_u64().and_then(|id| id.try_into().ok())
}

/// Removes the copies that savers write of tied weights, and buffers that are no weights.
pub fn drop_copies(weights: &mut Weights) {
    weights.retain(|name| {
        let is_tied = name.ends_with("lm_head.weight") || name.contains("cls.predictions.decoder.");
        let is_buffer = name.ends_with(".attn.bias") || name.ends_with(".masked_bias");
        !is_tied && !is_buffer
    });
}
