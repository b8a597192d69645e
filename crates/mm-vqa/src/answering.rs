//! Answers to questions, by classification, by ranking or by generation.

use crate::folder::VqaConfig;
use crate::{Answers, Error, ImageStates, QuestionBatch, Result, VqaModel, VqaPipeline};
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_text::rank::AnswerList;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An answer with its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The answer.
    pub answer: String,
    /// Its probability: of a classifier that is trained with `loss.kind = "bce"`, and of ViLT, that of the
    /// answer by itself; of a ranking the share among its candidates; of a generated answer that of its
    /// tokens.
    pub probability: f32,
}

/// How a model that decodes answers finds them. A classifier chooses among its classes in any case.
#[derive(Clone, Debug, Default)]
pub enum AnswerMode {
    /// By a ranking of the answers in the model's folder where it has a list, else by generation.
    #[default]
    Default,
    /// By generation.
    Generate(GenerationConfig),
    /// By the likelihood of each answer of a list: see [`mm_text::rank`].
    Rank {
        /// The list.
        answers: Arc<Answers>,
        /// The number of candidates that are scored whole; LAVIS has 128.
        num_candidates: usize,
    },
}

/// The candidates of a ranking by default, as in LAVIS.
pub const NUM_CANDIDATES: usize = 128;

/// Finds answers. A list of answers is tokenized once.
#[derive(Debug)]
pub struct Answerer<'a> {
    pipeline: &'a VqaPipeline,
    top: usize,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Classify(Arc<Answers>),
    Generate(GenerationConfig),
    Rank { answers: Arc<Answers>, list: AnswerList, num_candidates: usize },
}

impl<'a> Answerer<'a> {
    /// Gives the up to `top` most probable answers to each question, found as `mode` says.
    ///
    /// # Errors
    /// The model is a classifier and `mode` is for others, or an answer of the list has no tokens.
    pub fn new(pipeline: &'a VqaPipeline, mode: &AnswerMode, top: usize) -> Result<Self> {
        let parts = &pipeline.parts;
        let VqaConfig::Blip(blip) = &pipeline.config else {
            let answers = parts.answers.clone();
            let answers = answers.ok_or_else(|| Error::Model("a classifier has answers".to_owned()))?;
            return match mode {
                AnswerMode::Default => Ok(Self { pipeline, top, way: Way::Classify(answers) }),
                _ => Err(Error::Model(
                    "the model is a classifier of its own answers: it neither generates nor ranks others"
                        .to_owned(),
                )),
            };
        };
        let rank = |answers: &Arc<Answers>, num_candidates| -> Result<Way> {
            let (tokenizer, start, end) = (&parts.tokenizer, blip.start(), blip.tokens.end);
            let list = AnswerList::new(tokenizer, answers.all(), &[start], end)?;
            Ok(Way::Rank { answers: Arc::clone(answers), list, num_candidates })
        };
        let way = match (mode, &parts.answers) {
            (AnswerMode::Rank { answers, num_candidates }, _) => rank(answers, *num_candidates)?,
            (AnswerMode::Default, Some(answers)) => rank(answers, NUM_CANDIDATES)?,
            (AnswerMode::Default, None) => Way::Generate(parts.generation.clone()),
            (AnswerMode::Generate(config), _) => Way::Generate(config.clone()),
        };
        Ok(Self { pipeline, top, way })
    }

    /// The answers to each of `questions` about the images of `states`, the most probable first.
    ///
    /// # Errors
    /// The questions are not of the images, or libtorch refuses an operation.
    pub fn answer(&self, states: &ImageStates, questions: &QuestionBatch) -> Result<Vec<Vec<Answer>>> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        questions.check(states.len())?;
        match &self.way {
            Way::Classify(answers) => self.classify(states, questions, answers),
            Way::Generate(config) => self.generate(states, questions, config),
            Way::Rank { answers, list, num_candidates } => {
                let rankings = mm_sys::inference_mode(|| {
                    let context = self.context(states, questions)?;
                    self.blip()?.rank(&context, list, *num_candidates)
                })?;
                let answer = |ranked: &mm_text::rank::RankedAnswer| Answer {
                    answer: answers.all()[ranked.answer].clone(),
                    probability: ranked.probability as f32,
                };
                let best = rankings.iter().map(|it| it.answers.iter().take(self.top).map(answer).collect());
                Ok(best.collect())
            }
        }
    }

    fn classify(
        &self,
        states: &ImageStates,
        questions: &QuestionBatch,
        answers: &Answers,
    ) -> Result<Vec<Vec<Answer>>> {
        let top = self.top.min(answers.len());
        let (values, indices) = mm_sys::inference_mode(|| -> Result<_> {
            let logits = self.pipeline.model.logits(states, questions)?;
            Ok(self.pipeline.probabilities(&logits)?.f_topk(top as i64, -1, true, true)?)
        })?;
        let values = Vec::<f32>::try_from(values.contiguous().view(-1))?;
        let indices = Vec::<i64>::try_from(indices.contiguous().view(-1))?;
        let answer = |(&index, probability): (&i64, f32)| Answer {
            answer: answers.all()[index as usize].clone(),
            probability,
        };
        let found: Vec<Answer> = indices.iter().zip(values).map(answer).collect();
        Ok(found.chunks(top).map(<[Answer]>::to_vec).collect())
    }

    fn generate(
        &self,
        states: &ImageStates,
        questions: &QuestionBatch,
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Answer>>> {
        let VqaConfig::Blip(blip) = &self.pipeline.config else { return Ok(Vec::new()) };
        // Beams give as many texts as there are of them.
        let texts = self.top.min(config.num_beams.max(1)).max(config.num_return_sequences.min(self.top));
        let config = GenerationConfig { num_return_sequences: texts, ..config.clone() };
        let prompts: Vec<Prompt> =
            (0..questions.len() as u64).map(|seed| Prompt { tokens: vec![blip.start()], seed }).collect();
        let found = mm_sys::inference_mode(|| {
            let context = self.context(states, questions)?;
            self.blip()?.generate(&context, &prompts, &config, &[blip.tokens.end])
        })?;
        let answer = |hypothesis: &Hypothesis| {
            let text = self.pipeline.parts.tokenizer.decode(&hypothesis.tokens)?;
            Ok(Answer { answer: text, probability: hypothesis.log_probs.iter().sum::<f32>().exp() })
        };
        found.iter().map(|texts| texts.iter().map(answer).collect()).collect()
    }

    fn blip(&self) -> Result<&crate::blip::BlipVqa> {
        match &self.pipeline.model {
            VqaModel::Blip(model) => Ok(model),
            _ => Err(Error::Model("the model decodes no answers".to_owned())),
        }
    }

    fn context(&self, states: &ImageStates, questions: &QuestionBatch) -> Result<mm_core::nn::Context> {
        match states {
            ImageStates::Tokens(tokens) => {
                self.blip()?.encode_questions(tokens, &questions.image_index, &questions.tokens)
            }
            ImageStates::Images(_) => Err(Error::Model("the model reads tokens of images".to_owned())),
        }
    }
}
