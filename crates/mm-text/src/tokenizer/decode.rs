//! Tokenizers of decoders: words to ids without begin and end tokens, and ids to text.

use super::clip::END_OF_WORD;
use super::guard::guarded;
use super::{Tokenizer, files, format_error, library_error};
use crate::{Error, Result};
use std::path::Path;

impl Tokenizer {
    /// As [`Tokenizer::from_dir`], for a decoder, which adds begin and end tokens itself: the tokenizer need
    /// not add any, as GPT-2's does not. Its end token is then the `eos_token` of `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`], or the tokenizer has no end token at all.
    pub fn for_decoder(dir: &Path) -> Result<Self> {
        let (inner, config) = files::read(dir)?;
        Self::new(inner, &config, true).map_err(|error| match error {
            Error::Tokenizer(reason) | Error::Config(reason) => format_error(dir, reason),
            error => error,
        })
    }

    /// Token ids of `text` alone, without begin and end tokens, of any number.
    ///
    /// # Errors
    /// A vocabulary that does not cover the text and has no unknown token.
    pub fn encode_words(&self, text: &str) -> Result<Vec<u32>> {
        let text = self.text_clean().clean(text);
        let encoding = guarded(|| self.inner.encode_fast(text.as_ref(), false)).map_err(library_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens: transformers' `decode` with `skip_special_tokens`.
    ///
    /// # Errors
    /// The tokenizers library cannot decode them. An id that no token has is left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let text = guarded(|| self.inner.decode(ids, true)).map_err(library_error)?;
        let text = if self.is_clip() { join_words(&text) } else { text };
        Ok(text.trim().to_owned())
    }

    /// The token that stands for characters that are not in the vocabulary, if there is one: that of the
    /// files, else `<unk>` or `[UNK]`.
    pub fn unknown_id(&self) -> Option<u32> {
        let named = self.roles.iter().find(|(role, _)| *role == "unk_token").map(|(_, token)| token.as_str());
        named.into_iter().chain(["<unk>", "[UNK]"]).find_map(|token| self.token_id(token))
    }

    /// The id of `token`, if it is in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of the token that is the whole `word`, if there is one.
    pub fn word_id(&self, word: &str) -> Option<u32> {
        if self.is_clip() { self.token_id(&format!("{word}{END_OF_WORD}")) } else { self.token_id(word) }
    }

    /// The token of `id`, if there is one.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// The decoded `text` of CLIP's tokens: the library keeps the mark of a word's end, and punctuation is a
/// word. Spaces before it are removed as by transformers' `clean_up_tokenization`.
fn join_words(text: &str) -> String {
    let joined = [" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're"];
    let text = text.replace(END_OF_WORD, " ");
    joined.iter().fold(text, |text, mark| text.replace(mark, &mark[1..]))
}

#[cfg(test)]
mod tests {
    use crate::train_bpe;

    #[test]
    fn words_of_a_trained_tokenizer_are_joined_as_they_were_written() {
        let captions = ["a red star, which is above two dogs", "there's a red star"].map(str::to_owned);
        let tokenizer = train_bpe(captions.clone().into_iter(), 600, 32).unwrap();
        for caption in captions {
            let ids = tokenizer.encode(&caption).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), caption);
        }
    }
}
