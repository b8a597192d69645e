//! The samples of a training step.

use mm_image::RgbImage;
use mm_text::TokenBatch;
use tch::{Device, Tensor};

/// An image with some of its questions, ready to be batched.
pub struct VqaItem {
    pub(crate) image: RgbImage,
    pub(crate) questions: Vec<QuestionItem>,
}

/// A question with its target.
#[derive(Clone, Debug)]
pub(crate) struct QuestionItem {
    pub token_ids: Vec<u32>,
    /// Whether the question was longer than the tokenizer's context.
    pub is_cut: bool,
    /// The scores of answers of the list; empty where the list has none of them.
    pub scores: Vec<(u32, f32)>,
}

impl mm_data::Item for VqaItem {
    fn bytes(&self) -> usize {
        let tokens: usize = self.questions.iter().map(|question| question.token_ids.len()).sum();
        self.image.bytes() + 4 * tokens
    }
}

/// Images with questions on the model's device.
pub struct VqaBatch {
    /// `[G, 3, H, W]`.
    pub pixel_values: Tensor,
    /// The questions.
    pub questions: QuestionBatch,
    /// The score of each class, `[Q, classes]`.
    pub targets: Tensor,
    /// The share of questions that were cut.
    pub cut_questions: f64,
    /// The share of questions none of whose answers is in the list of answers.
    pub unknown_answers: f64,
}

/// Q questions about G images.
#[derive(Debug)]
pub struct QuestionBatch {
    /// Their tokens `[Q, L]`, padded on the right.
    pub tokens: TokenBatch,
    /// The image of each question, `[Q]` (i64).
    pub image_index: Tensor,
}

impl QuestionBatch {
    /// The same batch on `device`.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            tokens: self.tokens.to_device(device),
            image_index: mm_core::upload(&self.image_index, device),
        }
    }

    /// The number of tokens of each question, `[Q]` (i64).
    pub fn lengths(&self) -> Tensor {
        self.tokens.attention_mask.sum_dim_intlist([-1i64].as_slice(), false, tch::Kind::Int64)
    }

    /// The number of questions.
    pub fn len(&self) -> usize {
        self.tokens.size() as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
