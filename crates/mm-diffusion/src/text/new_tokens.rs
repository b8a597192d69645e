//! Tokens that textual inversions add to the text encoders of a pipeline.

use super::{ClipTextEncoder, TextEncoders};
use crate::textual_inversion::expand;
use crate::{Error, Result};
use mm_text::Tokenizer;
use std::borrow::Cow;
use std::sync::Arc;
use tch::Tensor;

impl TextEncoders {
    /// Adds `tokens` with `vectors` `[n, d]` of the first encoder, which may train, and those of the second.
    /// In a prompt the first token stands for all of them.
    ///
    /// # Errors
    /// A token is known already, the vectors have not the width of the encoder, there are none for the second
    /// encoder or too many, or a third encoder would read the token as text.
    pub(crate) fn with_new_tokens(
        self,
        tokens: Vec<String>,
        vectors: &Tensor,
        vectors_2: Option<&Tensor>,
    ) -> Result<Self> {
        if self.t5.is_some() {
            return Err(Error::Model("T5 reads no textual inversion: they are for CLIPs alone".to_owned()));
        }
        let second = match (self.second, vectors_2) {
            (Some(second), Some(vectors)) => Some(second.with_new_tokens(&tokens, vectors)?),
            (None, None) => None,
            (second, _) => {
                let counts = if second.is_some() {
                    "one text encoder, and the model has two"
                } else {
                    "two text encoders, and the model has one"
                };
                return Err(Error::Model(format!("the vectors are for {counts}")));
            }
        };
        let first = self.first.with_new_tokens(&tokens, vectors)?;
        let mut new_tokens = self.new_tokens;
        new_tokens.push(tokens);
        Ok(Self { first, second, new_tokens, ..self })
    }

    /// `prompts` with all tokens of those that stand for several.
    pub(crate) fn expanded<'a>(&self, prompts: &[&'a str]) -> Vec<Cow<'a, str>> {
        prompts.iter().map(|prompt| expand(&self.new_tokens, prompt)).collect()
    }
}

impl ClipTextEncoder {
    fn with_new_tokens(self, tokens: &[String], vectors: &Tensor) -> Result<Self> {
        let Self { mut model, tokenizer, mut config, .. } = self;
        let shared = || Error::Model("the tokenizer is in use: tokens are added before".to_owned());
        let tokenizer = Arc::into_inner(tokenizer).ok_or_else(shared)?.with_new_tokens(tokens)?;
        let id = tokens.first().and_then(|token| tokenizer.token_id(token)).map_or(0, i64::from);
        model.add_tokens(id, &vectors.to_device(self.device))?;
        config.vocab_size = id + tokens.len() as i64;
        Ok(Self { model, tokenizer: Arc::new(tokenizer), config, ..self })
    }
}

/// The tokens that were added to a vocabulary, as diffusers saves it with textual inversions: those that
/// stand for several, each with the others.
pub(super) fn added(tokenizer: &Tokenizer) -> Vec<Vec<String>> {
    let ids = tokenizer.largest_word_id() + 1..tokenizer.vocab_size() as u32;
    let numbered = |token: &str| {
        let others = (1..).map(|number| format!("{token}_{number}"));
        others.take_while(|token| tokenizer.token_id(token).is_some()).collect::<Vec<_>>()
    };
    let tokens = ids.filter_map(|id| tokenizer.token(id));
    let all = tokens.map(|token| [vec![token.clone()], numbered(&token)].concat());
    all.filter(|tokens| tokens.len() > 1).collect()
}
