//! The decoders, behind one interface.

use super::{BertDecoderConfig, Gpt2Config, TextDecoder};
use crate::{Error, Result, Tokenizer};
use mm_core::nn::TowerSpec;
use tch::nn::Path;

mm_core::tower_configs! {
    /// The config of any decoder; in TOML, `kind = "gpt2"` or `kind = "bert"` beside the fields of the
    /// decoder's own config.
    pub enum TextDecoderConfig: dyn TextDecoderSpec {
        /// GPT-2's: normalizes before each sub-layer.
        Gpt2(Gpt2Config) = "gpt2",
        /// BERT with a causal mask: normalizes after each sub-layer. BLIP's.
        Bert(BertDecoderConfig) = "bert",
    }
}

/// The config of a decoder.
pub trait TextDecoderSpec: TowerSpec {
    /// Creates the decoder below `path`, with cross-attention over states of width `context_width` where it
    /// is given.
    ///
    /// # Errors
    /// As [`TextDecoderSpec::validate`].
    fn build(&self, path: &Path, context_width: Option<i64>) -> Result<Box<dyn TextDecoder>>;

    /// Checks that the decoder can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    fn validate(&self) -> Result<()>;

    /// D, the width of the token embeddings.
    fn width(&self) -> i64;

    /// Rows of the token embedding.
    fn vocab_size(&self) -> i64;

    /// Sets the rows of the token embedding, for a decoder that is trained with a new tokenizer.
    fn set_vocab_size(&mut self, vocab_size: i64);

    /// The largest number of tokens of a text.
    fn max_length(&self) -> i64;
}

impl TextDecoderConfig {
    /// Checks that this decoder has an embedding for every token of `tokenizer`.
    ///
    /// # Errors
    /// It has not.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (ids, rows) = (tokenizer.vocab_size(), self.vocab_size());
        if ids as i64 > rows {
            let reason = format!("its vocabulary has {ids} tokens, the decoder's embedding {rows} rows");
            return Err(Error::Mismatch(reason));
        }
        Ok(())
    }
}
