//! The questions of a training set, counted in one pass.

use crate::answers::consensus;
use crate::metrics::baselines::{Baselines, TrainingQuestion};
use mm_train::TaskContext;
use std::collections::BTreeMap;

/// The distinct questions of a training set, by text and type of answer, with how often each answer is their
/// most frequent one.
#[derive(Debug, Default)]
pub(crate) struct TrainingQuestions(BTreeMap<(String, Option<String>), BTreeMap<String, usize>>);

impl TrainingQuestions {
    /// Reads the questions of all samples of the training set. A sample that cannot be read has none here: it
    /// is counted when training reads it.
    pub fn read(context: &TaskContext) -> Self {
        let mut questions = Self::default();
        let total = context.dataset.len();
        for index in 0..total {
            context.progress.report("questions read", index as u64 + 1, total as u64);
            let Ok(sample) = context.dataset.sample(index) else { continue };
            for question in &sample.questions {
                let Some(answer) = consensus(question) else { continue };
                let key = (question.text.clone(), question.kind.clone());
                *questions.0.entry(key).or_default().entry(answer).or_default() += 1;
            }
        }
        questions
    }

    /// How often each answer is the most frequent one of a question.
    pub fn answer_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (answer, count) in self.0.values().flatten() {
            *counts.entry(answer.clone()).or_default() += count;
        }
        counts
    }

    /// The distinct questions.
    pub fn texts(&self) -> impl Iterator<Item = String> + Send + '_ {
        self.0.keys().map(|(text, _)| text.clone())
    }

    /// The answers that are right without looking at the image.
    pub fn baselines(&self) -> Baselines {
        let of_question = |((text, kind), answers): (&(String, Option<String>), &BTreeMap<String, usize>)| {
            let given: Vec<String> = answers
                .iter()
                .flat_map(|(answer, &count)| std::iter::repeat_n(answer.clone(), count))
                .collect();
            (text.clone(), kind.clone(), given)
        };
        let questions: Vec<_> = self.0.iter().map(of_question).collect();
        Baselines::new(questions.iter().map(|(question, kind, answers)| TrainingQuestion {
            question,
            question_type: kind.as_deref(),
            answers,
        }))
    }
}
