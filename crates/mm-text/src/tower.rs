use crate::{
    Bert, BertConfig, ClipText, ClipTextConfig, ClipTextVariant, Error, Padding, Result, TokenBatch,
    Tokenizer,
};
use mm_core::Precision;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

/// A text tower as a config names it: `kind = "clip"` or `kind = "bert"`, beside that tower's own fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TextTowerConfig {
    /// CLIP's or SigLIP's text transformer.
    Clip(ClipTextConfig),
    /// BERT.
    Bert(BertConfig),
}

/// Any of the text towers.
#[derive(Debug)]
pub enum TextTower {
    /// CLIP's or SigLIP's text transformer.
    Clip(ClipText),
    /// BERT.
    Bert(Bert),
}

impl TextTowerConfig {
    /// Creates the tower below `path`.
    pub fn build(&self, path: &Path) -> Result<TextTower> {
        Ok(match self {
            Self::Clip(config) => TextTower::Clip(ClipText::new(path, config)?),
            Self::Bert(config) => TextTower::Bert(Bert::new(path, config)?),
        })
    }

    /// Refuses sizes that make no tower.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Clip(config) => config.validate(),
            Self::Bert(config) => config.validate(),
        }
    }

    /// Whether training computes the activations inside of blocks again in the backward pass: less memory, more
    /// time, the same gradients.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        match self {
            Self::Clip(config) => config.gradient_checkpointing = on,
            Self::Bert(config) => config.gradient_checkpointing = on,
        }
    }

    /// Width of [`TextTower::forward`]'s output.
    pub fn output_width(&self) -> i64 {
        match self {
            Self::Clip(config) => config.output_width(),
            Self::Bert(config) => config.hidden_size,
        }
    }

    /// The most tokens a text may have.
    pub fn context_length(&self) -> i64 {
        match self {
            Self::Clip(config) => config.max_position_embeddings,
            Self::Bert(config) => config.max_position_embeddings,
        }
    }

    /// Rows of the token embedding.
    pub fn vocab_size(&self) -> i64 {
        match self {
            Self::Clip(config) => config.vocab_size,
            Self::Bert(config) => config.vocab_size,
        }
    }

    /// How batches for this tower are padded.
    pub fn padding(&self) -> Padding {
        match self {
            Self::Clip(config) if config.form == ClipTextVariant::Siglip => Padding::Fixed,
            _ => Padding::Longest,
        }
    }

    /// The tensors that transformers' class of this tower takes from a tokenizer. SigLIP's sees its padding,
    /// so it gets no mask.
    pub fn input_names(&self) -> &'static [&'static str] {
        match self {
            Self::Clip(config) if config.form == ClipTextVariant::Siglip => &["input_ids"],
            Self::Clip(_) => &["input_ids", "attention_mask"],
            Self::Bert(_) => &["input_ids", "token_type_ids", "attention_mask"],
        }
    }

    /// Refuses a tokenizer whose batches this tower cannot take: ids outside the embedding, texts over the
    /// context length, or an end token that is not the one that CLIP's form pools.
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
        if let Self::Clip(config) = self {
            let eos = i64::from(tokenizer.eos_id());
            if let Some(pooled) = config.pooled_token().filter(|&pooled| pooled != eos) {
                let reason = format!("its end token is {eos}, the tower's eos_token_id {pooled}");
                return Err(Error::Mismatch(reason));
            }
        }
        Ok(())
    }
}

impl TextTowerConfig {
    /// Refuses a tokenizer whose end token is not the largest id of its texts, where the tower reads a text
    /// there. Tokens that were added behind the vocabulary may be larger: a text that has one is read at it,
    /// as by the peers.
    ///
    /// # Errors
    /// A token of the vocabulary is larger than the end token.
    pub fn check_largest_id(&self, tokenizer: &Tokenizer) -> Result<()> {
        match self {
            Self::Clip(config) if config.form == ClipTextVariant::Clip && config.pooled_token().is_none() => {
                let (eos, largest) = (tokenizer.eos_id(), tokenizer.largest_word_id());
                match eos >= largest {
                    true => Ok(()),
                    false => Err(Error::Mismatch(format!(
                        "the tower reads a text at its largest id, but the end token is {eos} and ids go to {largest}"
                    ))),
                }
            }
            _ => Ok(()),
        }
    }
}

impl TextTower {
    /// Maps `tokens` to one vector a text, `[B, output_width]`, in the weights' type. The tokens come from a
    /// tokenizer that [`TextTowerConfig::check_tokenizer`] accepts.
    pub fn forward(&self, tokens: &TokenBatch) -> Tensor {
        match self {
            Self::Clip(tower) => tower.forward(&tokens.input_ids),
            Self::Bert(tower) => tower.forward(&tokens.input_ids, &tokens.attention_mask),
        }
    }

    /// Readies for inference in `precision`, with weights laid out for oneDNN.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::Clip(tower) => tower.pack(precision),
            Self::Bert(tower) => tower.pack(precision),
        }
    }
}
