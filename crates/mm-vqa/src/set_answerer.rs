//! Answers to all questions of a set, in batches: an image is read once for all its questions.

use crate::{Answer, Result, VqaPipeline};
use mm_data::{Fault, Item, Map, Question, Sample, SampleRng};
use mm_image::RgbImage;
use mm_train::{EvalContext, EvalSet, ReadReport};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How the questions of a set are answered.
#[derive(Clone, Copy, Debug)]
pub struct SetAnswerer<'a> {
    /// The model.
    pub pipeline: &'a VqaPipeline,
    /// The number of answers to give to each question.
    pub top: usize,
    /// Whether the model sees an image of the mean color in place of each image.
    pub blind: bool,
    /// Whether each question is also answered for such an image, beside the answers for its own.
    pub blind_baseline: bool,
}

/// A question of a set with its answers, the most probable first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionAnswers {
    /// The number of its sample in the set.
    pub index: usize,
    /// The key of its sample.
    pub key: String,
    /// The question.
    pub question: Question,
    /// Whether it was longer than the model reads.
    pub is_cut: bool,
    /// Its answers.
    pub answers: Vec<Answer>,
    /// The best answer without the image, with [`SetAnswerer::blind_baseline`].
    pub blind_answer: Option<String>,
}

/// An image with its questions.
struct Asked {
    key: String,
    image: RgbImage,
    questions: Vec<(Question, Vec<u32>, bool)>,
}

impl Item for Asked {
    fn bytes(&self) -> usize {
        let of_question = |(question, tokens, _): &(Question, Vec<u32>, bool)| {
            question.text.len() + question.answers.iter().map(String::len).sum::<usize>() + 4 * tokens.len()
        };
        self.image.bytes() + self.questions.iter().map(of_question).sum::<usize>()
    }
}

impl SetAnswerer<'_> {
    /// Answers the questions of the samples of `set` that can be read, in order, and calls `body` with those
    /// of each batch of images. Images are decoded ahead of the model.
    ///
    /// # Errors
    /// More samples are bad than the set allows, `body` fails, or as [`VqaPipeline::answer`].
    pub fn answer_set(
        &self,
        set: &EvalSet,
        context: &EvalContext,
        mut body: impl FnMut(Vec<QuestionAnswers>) -> mm_train::Result<()>,
    ) -> Result<ReadReport> {
        let map = self.preprocess(set);
        Ok(set.for_each_batch(context, map, |items, indices| body(self.answer_batch(items, &indices)?))?)
    }

    fn preprocess(&self, set: &EvalSet) -> Map<Asked> {
        let (processor, tokenizer) = (self.pipeline.processor.clone(), Arc::clone(&self.pipeline.tokenizer));
        let (background, fast_decode) = (set.background, set.fast_decode);
        Arc::new(move |sample: &Sample, _: &mut SampleRng| {
            if sample.questions.is_empty() {
                return Err(mm_data::Error::bad(Fault::Other, "no question"));
            }
            let divisor = |width, height| {
                if fast_decode { processor.largest_divisor(width, height) } else { 1 }
            };
            let image = sample.image()?.decode_reduced(background, divisor)?;
            let bad = |error: mm_vision::Error| mm_data::Error::bad(Fault::Image, error.to_string());
            let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
            let encode = |question: &Question| {
                let (tokens, is_cut) = tokenizer.encode_and_tell(&question.text).map_err(unreadable)?;
                Ok((question.clone(), tokens, is_cut))
            };
            Ok(Asked {
                key: sample.key.clone(),
                image: processor.resize_reduced(&image).map_err(bad)?,
                questions: sample.questions.iter().map(encode).collect::<mm_data::Result<_>>()?,
            })
        })
    }

    fn answer_batch(&self, items: Vec<Asked>, indices: &[usize]) -> Result<Vec<QuestionAnswers>> {
        let (mut images, mut rows, mut image_index, mut asked) = (vec![], vec![], vec![], vec![]);
        for (place, (item, &index)) in items.into_iter().zip(indices).enumerate() {
            images.push(item.image);
            for (question, tokens, is_cut) in item.questions {
                image_index.push(if self.blind { 0 } else { place as i64 });
                rows.push(tokens);
                asked.push((index, item.key.clone(), question, is_cut));
            }
        }
        let states =
            if self.blind { self.pipeline.encode_blank()? } else { self.pipeline.encode_resized(&images)? };
        let answers = self.pipeline.answer(&states, &self.pipeline.collate(&rows, &image_index), self.top)?;
        let blind_answers = if self.blind_baseline {
            let questions = self.pipeline.collate(&rows, &vec![0; rows.len()]);
            self.pipeline.answer(&self.pipeline.encode_blank()?, &questions, 1)?
        } else {
            vec![Vec::new(); rows.len()]
        };
        let answered = asked.into_iter().zip(answers).zip(blind_answers);
        let answered = answered.map(|(((index, key, question, is_cut), answers), blind)| {
            let blind_answer = blind.into_iter().next().map(|answer| answer.answer);
            QuestionAnswers { index, key, question, is_cut, answers, blind_answer }
        });
        Ok(answered.collect())
    }
}
