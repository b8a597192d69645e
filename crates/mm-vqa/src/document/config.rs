//! The config of a model that reads documents.

use crate::{Error, Result};
use mm_core::nn::TowerSpec;
use mm_text::Tokenizer;
use mm_text::decoder::{MBartDecoderConfig, SpecialTokens, TextDecoderSpec};
use mm_vision::SwinConfig;
use serde::{Deserialize, Serialize};

/// The sizes of a [`DocumentModel`](super::DocumentModel).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DocumentModelConfig {
    /// The image encoder.
    pub encoder: SwinConfig,
    /// The decoder.
    pub decoder: MBartDecoderConfig,
}

impl DocumentModelConfig {
    /// Checks that the model can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        self.encoder.validate()?;
        Ok(self.decoder.validate()?)
    }

    /// Whether a projection maps the encoder's tokens to the decoder's width.
    pub(super) fn has_projection(&self) -> bool {
        self.encoder.hidden_size() != self.decoder.d_model
    }

    /// Checks that the decoder has an embedding for every token of `tokenizer` and for the special `tokens`,
    /// and that the tokenizer has the end token.
    pub(super) fn check_tokenizer(&self, tokenizer: &Tokenizer, tokens: &SpecialTokens) -> Result<()> {
        let (ids, rows) = (tokenizer.vocab_size(), self.decoder.vocab_size);
        if ids as i64 > rows {
            let problem = format!("the tokenizer has {ids} tokens, the decoder's embedding {rows} rows");
            return Err(Error::Model(problem));
        }
        if tokenizer.token(tokens.end).is_none() {
            return Err(Error::Model(format!(
                "the tokenizer has no token {}, with which texts end: take the tokenizer that the model was \
                 trained with",
                tokens.end
            )));
        }
        match tokens.start.filter(|&start| i64::from(start) >= rows) {
            Some(start) => Err(Error::Model(format!(
                "texts begin with token {start}, and the decoder has {rows} embeddings"
            ))),
            None => Ok(()),
        }
    }

    /// The model in a few words.
    pub fn describe(&self) -> String {
        format!("{}; {}", self.encoder.describe(), self.decoder.describe())
    }
}
