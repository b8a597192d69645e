//! The model: image tower, question encoder, answer decoder.

use super::BlipVqaConfig;
use super::images::image_groups;
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::nn::{AttentionMask, Context};
use mm_text::TokenBatch;
use mm_text::decoder::{BertDecoder, BertEncoder, NextTokens, TextDecoder};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt, generate};
use mm_text::rank::{AnswerList, Ranking, rank};
use mm_vision::Vit;
use tch::Tensor;
use tch::nn::Path;

/// BLIP for questions. Parameters have the names of transformers' `BlipForQuestionAnswering`.
///
/// The way of a batch of Q questions about G images: [`BlipVqa::encode_images`],
/// [`BlipVqa::encode_questions`], then [`BlipVqa::generate`], [`BlipVqa::rank`] or, in training,
/// [`BlipVqa::next_token_logits`].
#[derive(Debug)]
pub struct BlipVqa {
    vision: Vit,
    text_encoder: BertEncoder,
    text_decoder: BertDecoder,
}

impl BlipVqa {
    /// Creates the model's parameters below `path`.
    ///
    /// # Errors
    /// As [`BlipVqaConfig::validate`].
    pub fn new(path: &Path, config: &BlipVqaConfig) -> Result<Self> {
        config.validate()?;
        let (image, text) = (&config.image, &config.text);
        Ok(Self {
            vision: Vit::new(&(path / "vision_model"), image.clone())?,
            text_encoder: BertEncoder::new(&(path / "text_encoder"), text, image.hidden_size)?,
            text_decoder: BertDecoder::new(&(path / "text_decoder"), text, Some(text.hidden_size))?,
        })
    }

    /// Maps `pixel_values` `[G, 3, H, W]` to the states that questions read, `[G, S, D]`: the class token,
    /// then the patches row by row.
    pub fn encode_images(&self, pixel_values: &Tensor) -> Tensor {
        self.vision.forward_tokens(pixel_values)
    }

    /// Encodes `questions` `[Q, L]`, of which question i is about image `image_index[i]` of `states` `[G, S,
    /// D]`, to what the answer decoder reads: states `[Q, L, D]` with their padding hidden. The keys and
    /// values of an image are computed once for all of its questions.
    ///
    /// # Errors
    /// The number of questions differs from that of their images, an image does not exist, or a question is
    /// longer than the table of positions.
    pub fn encode_questions(
        &self,
        states: &Tensor,
        image_index: &[i64],
        questions: &TokenBatch,
    ) -> Result<Context> {
        let (count, length) = questions.input_ids.size2()?;
        if count != image_index.len() as i64 {
            return Err(Error::Model(format!("{count} questions with {} images", image_index.len())));
        }
        let limit = self.text_decoder.sizes().max_length;
        if length > limit {
            return Err(Error::Model(format!("a question of {length} tokens exceeds the {limit} positions")));
        }
        let groups = image_groups(image_index, states.size()[0])?;
        let order: Vec<i64> = groups.iter().flat_map(|group| &group.questions).copied().collect();
        let outputs: Vec<Tensor> = groups
            .iter()
            .map(|group| {
                let texts = TokenBatch {
                    input_ids: select(&questions.input_ids, &group.questions),
                    attention_mask: select(&questions.attention_mask, &group.questions),
                };
                self.text_encoder.forward(&texts, &unmasked(select(states, &group.images)))
            })
            .collect();
        let outputs = match outputs.as_slice() {
            [] => states.new_zeros([0, length, states.size()[2]], (states.kind(), states.device())),
            outputs => select(&Tensor::cat(outputs, 0), &inverse(&order)),
        };
        Ok(Context { states: outputs, mask: AttentionMask::padding_if_any(&questions.attention_mask) })
    }

    /// The logits `[N, vocab]` of the tokens that `next` has labels for. Answers are spread evenly over the
    /// questions of `context`, in order; with other numbers of answers a question,
    /// [`Context::index_select`] repeats questions.
    pub fn next_token_logits(&self, context: &Context, next: &NextTokens) -> Tensor {
        let outputs = self.text_decoder.forward(&next.input_ids, Some(context));
        self.text_decoder.logits(&next.select(&outputs))
    }

    /// The logits `[B, L, vocab]` of all positions of `input_ids` `[B, L]`.
    pub fn logits(&self, context: &Context, input_ids: &Tensor) -> Tensor {
        self.text_decoder.logits(&self.text_decoder.forward(input_ids, Some(context)))
    }

    /// Generates answers to each question of `context`, of one prompt each; see [`generate`].
    ///
    /// # Errors
    /// As [`generate`].
    pub fn generate(
        &self,
        context: &Context,
        prompts: &[Prompt],
        config: &GenerationConfig,
        eos: &[u32],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        Ok(generate(&self.text_decoder as &dyn TextDecoder, Some(context), prompts, config, eos)?)
    }

    /// Orders the `num_candidates` answers of `answers` with the most probable first tokens by their
    /// likelihood, for each question of `context`; see [`rank`].
    ///
    /// # Errors
    /// As [`rank`].
    pub fn rank(
        &self,
        context: &Context,
        answers: &AnswerList,
        num_candidates: usize,
    ) -> Result<Vec<Ranking>> {
        Ok(rank(&self.text_decoder, context, answers, num_candidates)?)
    }

    /// The cross-attention weights of the answer's tokens over the question, `[B, heads, L, S]` for each
    /// block: `input_ids` `[B, L]` begin with the begin token.
    pub fn answer_weights(&self, context: &Context, input_ids: &Tensor) -> Vec<Tensor> {
        self.text_decoder.forward_with_context_weights(input_ids, context).1
    }

    /// The cross-attention weights of the question's tokens over the image, `[Q, heads, L, S]` for each
    /// block. Questions are spread evenly over the images of `states` `[G, S, D]`, in order.
    pub fn question_weights(&self, states: &Tensor, questions: &TokenBatch) -> Vec<Tensor> {
        let context = unmasked(states.shallow_clone());
        self.text_encoder.forward_with_context_weights(questions, &context).1
    }

    /// Prepares for inference in `precision`. A packed model cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.vision.pack(precision);
        self.text_encoder.pack(precision);
        TextDecoder::pack(&mut self.text_decoder, precision);
    }
}

/// The states of images, none of which is padding.
fn unmasked(states: Tensor) -> Context {
    Context { states, mask: AttentionMask::none() }
}

/// The rows `index` of `tensor`, which are not copied where they are all of them in order.
fn select(tensor: &Tensor, index: &[i64]) -> Tensor {
    if (0..tensor.size()[0]).eq(index.iter().copied()) {
        return tensor.shallow_clone();
    }
    tensor.index_select(0, &Tensor::from_slice(index).to_device(tensor.device()))
}

/// The place of each number of `0..n` in `order`.
fn inverse(order: &[i64]) -> Vec<i64> {
    let mut places = vec![0; order.len()];
    for (place, &item) in (0..).zip(order) {
        places[item as usize] = place;
    }
    places
}
