//! Questions as tokens.

use crate::blip::BlipVqaConfig;
use crate::folder::VqaConfig;
use crate::{Error, Result};
use mm_core::upload;
use mm_text::{TokenBatch, Tokenizer};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Q questions about G images.
#[derive(Debug)]
pub struct QuestionBatch {
    /// Their tokens `[Q, L]`, padded on the right.
    pub tokens: TokenBatch,
    /// The image of each question, ascending.
    pub image_index: Vec<i64>,
}

/// A question's tokens, and whether it was longer than the model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuestionTokens {
    pub ids: Vec<u32>,
    pub is_cut: bool,
}

/// From questions to tokens, on any thread.
#[derive(Clone, Debug)]
pub(crate) struct QuestionTokenizer {
    tokenizer: Arc<Tokenizer>,
    /// The token in the place of the first one, where a model has its own.
    first: Option<u32>,
}

impl QuestionTokenizer {
    pub fn new(tokenizer: &Arc<Tokenizer>, config: &VqaConfig) -> Self {
        let first = match config {
            VqaConfig::Blip(config) => BlipVqaConfig::enc_token(config),
            VqaConfig::CoAttention(_) | VqaConfig::Vilt(_) => None,
        };
        Self { tokenizer: Arc::clone(tokenizer), first }
    }

    /// The tokens of a question.
    pub fn encode(&self, question: &str) -> mm_text::Result<QuestionTokens> {
        let (mut ids, is_cut) = self.tokenizer.encode_and_tell(question)?;
        if let (Some(token), Some(first)) = (self.first, ids.first_mut()) {
            *first = token;
        }
        Ok(QuestionTokens { ids, is_cut })
    }

    /// A batch of encoded questions on `device`; `image_index` has the image of each.
    pub fn collate(&self, rows: &[Vec<u32>], image_index: Vec<i64>, device: Device) -> QuestionBatch {
        let tokens = TokenBatch::from_rows(rows, 0, self.tokenizer.pad_id());
        QuestionBatch { tokens: tokens.to_device(device), image_index }
    }
}

impl QuestionBatch {
    /// The image of each question, `[Q]` (i64) on `device`.
    pub fn image_index_on(&self, device: Device) -> Tensor {
        upload(&Tensor::from_slice(&self.image_index), device)
    }

    /// The number of tokens of each question, `[Q]` (i64).
    pub fn lengths(&self) -> Tensor {
        self.tokens.attention_mask.sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
    }

    /// The number of questions.
    pub fn len(&self) -> usize {
        self.image_index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.image_index.is_empty()
    }

    /// Checks that every question is about one of `images` images.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self, images: usize) -> Result<()> {
        match self.image_index.iter().position(|image| !(0..images as i64).contains(image)) {
            None => Ok(()),
            Some(question) => {
                let image = self.image_index[question];
                Err(Error::Model(format!("question {question} is about image {image} of {images}")))
            }
        }
    }
}
