//! The samples of a training step.

use crate::answers::answer_shares;
use crate::folder::VqaConfig;
use crate::{ImageBatch, QuestionBatch, VqaPipeline};
use mm_core::upload;
use mm_data::Question;
use mm_image::RgbImage;
use mm_text::decoder::{CaptionTokens, NextTokens};
use std::sync::Arc;
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
    /// Whether the question was longer than the model reads.
    pub is_cut: bool,
    pub target: Target,
}

/// What the answer to a question is trained toward.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The scores of the answers of a classifier; empty where it has none of them.
    Scores(Vec<(u32, f32)>),
    /// The tokens of each answer with its share of the given answers, for a decoder.
    Texts(Vec<(Vec<u32>, f32)>),
}

/// From a question to its target, on any thread.
pub(crate) type TargetMap = dyn Fn(&Question) -> mm_text::Result<Target> + Send + Sync;

impl Target {
    /// The targets of a model's questions.
    pub fn of(pipeline: &VqaPipeline) -> Arc<TargetMap> {
        match (&pipeline.config, &pipeline.parts.answers) {
            (VqaConfig::Blip(blip), _) => {
                let tokenizer = Arc::clone(&pipeline.parts.tokenizer);
                let (start, end) = (blip.start(), blip.tokens.end);
                Arc::new(move |question| {
                    let tokens = |(answer, share): (String, f32)| -> mm_text::Result<_> {
                        let words = tokenizer.encode_words(&answer)?;
                        Ok(([&[start], &*words, &[end]].concat(), share))
                    };
                    Ok(Self::Texts(
                        answer_shares(question).into_iter().map(tokens).collect::<Result<_, _>>()?,
                    ))
                })
            }
            (_, Some(answers)) => {
                let answers = Arc::clone(answers);
                Arc::new(move |question| Ok(Self::Scores(answers.target(question))))
            }
            (_, None) => Arc::new(|_| Ok(Self::Scores(Vec::new()))),
        }
    }
}

impl mm_data::Item for VqaItem {
    fn bytes(&self) -> usize {
        let of_question = |question: &QuestionItem| {
            let of_target = match &question.target {
                Target::Scores(scores) => 8 * scores.len(),
                Target::Texts(texts) => texts.iter().map(|(tokens, _)| 4 * tokens.len()).sum(),
            };
            4 * question.token_ids.len() + of_target
        };
        self.image.bytes() + self.questions.iter().map(of_question).sum::<usize>()
    }
}

/// Images with questions on the model's device.
pub struct VqaBatch {
    /// The images.
    pub images: ImageBatch,
    /// The questions.
    pub questions: QuestionBatch,
    pub(crate) targets: Targets,
    /// The share of questions that were cut.
    pub cut_questions: f64,
    /// The share of questions none of whose answers a classifier has.
    pub unknown_answers: f64,
}

/// What the answers of a batch are trained toward.
pub(crate) enum Targets {
    /// The score of each class, `[Q, classes]`.
    Scores(Tensor),
    /// Answers as texts, for a decoder.
    Texts {
        next: NextTokens,
        /// The question of each answer, `[A]` (i64).
        question_index: Tensor,
        /// The weight of each label, `[N]`.
        weights: Tensor,
    },
}

impl Targets {
    /// The targets of a batch of questions, for a classifier of `classes` answers or for a decoder.
    pub fn new(targets: Vec<Target>, classes: usize, device: Device) -> Self {
        let count = targets.len();
        let mut scores = vec![0.0f32; count * classes];
        let (mut rows, mut questions, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (question, target) in targets.into_iter().enumerate() {
            match target {
                Target::Scores(of_question) => {
                    for (class, score) in of_question {
                        scores[question * classes + class as usize] = score;
                    }
                }
                Target::Texts(texts) => {
                    for (token_ids, weight) in texts {
                        // The begin token is given.
                        weights.resize(weights.len() + token_ids.len() - 1, weight);
                        rows.push(CaptionTokens { token_ids, prompt_length: 1 });
                        questions.push(question as i64);
                    }
                }
            }
        }
        if rows.is_empty() {
            let scores = Tensor::from_slice(&scores).view([count as i64, classes as i64]);
            return Self::Scores(upload(&scores, device));
        }
        Self::Texts {
            next: NextTokens::new(&rows, 0).to_device(device),
            question_index: upload(&Tensor::from_slice(&questions), device),
            weights: upload(&Tensor::from_slice(&weights), device),
        }
    }
}
