//! Answers to all questions of a set, in batches: an image is read once for all its questions.

use crate::answering::{Answer, AnswerMode, Answerer};
use crate::questions::QuestionTokens;
use crate::{ImageStates, Result, VqaPipeline};
use mm_data::{Fault, Item, Map, Question, Sample, SampleRng};
use mm_image::RgbImage;
use mm_train::{EvalContext, EvalSet, ReadReport};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How the questions of a set are answered.
#[derive(Clone, Debug)]
pub struct SetAnswerer<'a> {
    /// The model.
    pub pipeline: &'a VqaPipeline,
    /// How answers are found.
    pub mode: AnswerMode,
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
    questions: Vec<(Question, QuestionTokens)>,
}

impl Item for Asked {
    fn bytes(&self) -> usize {
        let of_question = |(question, tokens): &(Question, QuestionTokens)| {
            let answers = question.answers.iter().map(String::len).sum::<usize>();
            question.text.len() + answers + 4 * tokens.ids.len()
        };
        self.image.bytes() + self.questions.iter().map(of_question).sum::<usize>()
    }
}

impl SetAnswerer<'_> {
    /// Answers the questions of the samples of `set` that can be read, in order, and calls `body` with those
    /// of each batch of images. Images are decoded ahead of the model.
    ///
    /// # Errors
    /// More samples are bad than the set allows, `body` fails, or as [`Answerer::answer`].
    pub fn answer_set(
        &self,
        set: &EvalSet,
        context: &EvalContext,
        mut body: impl FnMut(Vec<QuestionAnswers>) -> mm_train::Result<()>,
    ) -> Result<ReadReport> {
        let answerer = Answerer::new(self.pipeline, &self.mode, self.top)?;
        let blank = self.pipeline.encode_blank()?;
        let map = self.preprocess(set);
        Ok(set.for_each_batch(context, map, |items, indices| {
            body(self.answer_batch(items, &indices, &answerer, &blank)?)
        })?)
    }

    fn preprocess(&self, set: &EvalSet) -> Map<Asked> {
        let (processor, tokenizer) =
            (self.pipeline.parts.processor.clone(), self.pipeline.question_tokenizer());
        let (background, fast_decode) = (set.background, set.fast_decode);
        Arc::new(move |sample: &Sample, _: &mut SampleRng| {
            if sample.questions.is_empty() {
                return Err(mm_data::Error::bad(Fault::Other, "no question"));
            }
            let divisor = |width, height| {
                if fast_decode { processor.largest_divisor(width, height) } else { 1 }
            };
            let image = sample.image()?.decode_reduced(background, divisor)?;
            let bad = |error: crate::Error| mm_data::Error::bad(Fault::Image, error.to_string());
            let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
            let encode = |question: &Question| {
                Ok((question.clone(), tokenizer.encode(&question.text).map_err(unreadable)?))
            };
            Ok(Asked {
                key: sample.key.clone(),
                image: processor.resize_reduced(&image).map_err(bad)?,
                questions: sample.questions.iter().map(encode).collect::<mm_data::Result<_>>()?,
            })
        })
    }

    fn answer_batch(
        &self,
        items: Vec<Asked>,
        indices: &[usize],
        answerer: &Answerer,
        blank: &ImageStates,
    ) -> Result<Vec<QuestionAnswers>> {
        let (mut images, mut rows, mut image_index, mut asked) = (vec![], vec![], vec![], vec![]);
        for (place, (item, &index)) in (0..).zip(items.into_iter().zip(indices)) {
            images.push(item.image);
            for (question, tokens) in item.questions {
                image_index.push(if self.blind { 0 } else { place });
                rows.push(tokens.ids);
                asked.push((index, item.key.clone(), question, tokens.is_cut));
            }
        }
        let pipeline = self.pipeline;
        let tokenizer = pipeline.question_tokenizer();
        let questions = tokenizer.collate(&rows, image_index, pipeline.device);
        let answers = if self.blind {
            answerer.answer(blank, &questions)?
        } else {
            answerer.answer(&pipeline.encode_resized(&images)?, &questions)?
        };
        let blind_answers = if self.blind_baseline {
            let questions = tokenizer.collate(&rows, vec![0; rows.len()], pipeline.device);
            answerer.answer(blank, &questions)?
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
