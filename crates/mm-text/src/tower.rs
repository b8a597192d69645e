//! The text towers, behind one interface.

use crate::{BertConfig, ClipTextConfig, Error, Padding, Result, TokenBatch, Tokenizer};
use mm_core::Precision;
use mm_core::nn::TowerSpec;
use std::fmt::Debug;
use tch::Tensor;
use tch::nn::Path;

mm_core::tower_configs! {
    /// The config of any text tower; in TOML, `kind = "clip"` or `kind = "bert"` beside the fields of the
    /// tower's own config.
    pub enum TextTowerConfig: dyn TextTowerSpec {
        /// CLIP's or SigLIP's text transformer.
        Clip(ClipTextConfig) = "clip",
        /// BERT.
        Bert(BertConfig) = "bert",
    }
}

/// The config of a text tower.
pub trait TextTowerSpec: TowerSpec {
    /// Creates the tower below `path`.
    ///
    /// # Errors
    /// As [`TextTowerSpec::validate`].
    fn build(&self, path: &Path) -> Result<Box<dyn TextTower>>;

    /// Checks that the tower can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    fn validate(&self) -> Result<()>;

    /// Width of the output.
    fn output_width(&self) -> i64;

    /// The largest number of tokens in a text.
    fn context_length(&self) -> i64;

    /// Rows of the token embedding.
    fn vocab_size(&self) -> i64;

    /// Takes the sizes that depend on the vocabulary from `tokenizer`, for a tower that is trained with it.
    fn set_vocabulary(&mut self, tokenizer: &Tokenizer);

    /// How batches for this tower are padded.
    fn padding(&self) -> Padding {
        Padding::Longest
    }

    /// The tensors that transformers' class of this tower takes from a tokenizer.
    fn input_names(&self) -> &'static [&'static str];

    /// Where the tower reads a text, if that depends on its token ids.
    fn pooled_token(&self) -> PooledToken {
        PooledToken::Any
    }

    /// Whether the output is already in the space shared with images, so that no projection follows.
    fn ends_in_shared_space(&self) -> bool {
        false
    }
}

/// The token whose output stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PooledToken {
    /// The pooling does not depend on token ids.
    Any,
    /// The first token with this id.
    Id(i64),
    /// The token with the largest id.
    LargestId,
}

impl TextTowerConfig {
    /// Checks that this tower can take the batches of `tokenizer`.
    ///
    /// # Errors
    /// Ids outside the embedding, texts over the context length, or an end token other than the one that the
    /// tower pools.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (ids, rows) = (tokenizer.vocab_size(), self.vocab_size());
        if ids as i64 > rows {
            return Err(Error::Mismatch(format!(
                "its vocabulary has {ids} tokens, the tower's embedding {rows} rows"
            )));
        }
        let (length, limit) = (tokenizer.context_length(), self.context_length());
        if length as i64 > limit {
            let reason = format!("it makes up to {length} tokens a text, the tower has {limit} positions");
            return Err(Error::Mismatch(reason));
        }
        let eos = i64::from(tokenizer.eos_id());
        match self.pooled_token() {
            PooledToken::Id(pooled) if pooled != eos => {
                Err(Error::Mismatch(format!("its end token is {eos}, the tower's eos_token_id {pooled}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the end token is the largest id in the texts of `tokenizer`, if the tower reads a text at
    /// its largest id. Tokens that were added to the vocabulary may be larger: a text that has one is read at
    /// it, as by the peers.
    ///
    /// # Errors
    /// A token of the vocabulary is larger than the end token.
    pub fn check_largest_id(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (eos, largest) = (tokenizer.eos_id(), tokenizer.largest_word_id());
        if self.pooled_token() == PooledToken::LargestId && eos < largest {
            let reason = format!("but the end token is {eos} and ids go to {largest}");
            return Err(Error::Mismatch(format!("the tower reads a text at its largest id, {reason}")));
        }
        Ok(())
    }
}

/// A text tower: token ids in, one vector a text out.
pub trait TextTower: Debug + Send {
    /// Maps `tokens` to one vector a text, `[B, output_width]`, in the weights' type. The tokens come from a
    /// tokenizer that [`TextTowerConfig::check_tokenizer`] accepts.
    fn forward(&self, tokens: &TokenBatch) -> Tensor;

    /// Prepares for inference in `precision`, with weights laid out for oneDNN. A packed tower cannot be
    /// trained.
    fn pack(&mut self, precision: Precision);
}
