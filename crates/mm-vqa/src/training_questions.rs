//! The questions of a training set, counted in one pass.

use crate::Result;
use crate::answers::consensus;
use mm_train::TaskContext;
use std::collections::BTreeMap;

/// The distinct questions of a training set and the answers to them.
#[derive(Debug, Default)]
pub(crate) struct TrainingQuestions {
    /// For each question text, how often each answer is its most frequent one.
    by_text: BTreeMap<String, BTreeMap<String, usize>>,
}

impl TrainingQuestions {
    /// Reads the questions of all samples of the training set. A sample that cannot be read has none here: it
    /// is counted when training reads it.
    pub fn read(context: &TaskContext) -> Result<Self> {
        let mut questions = Self::default();
        let total = context.dataset.len();
        for index in 0..total {
            context.progress.report("questions read for the answers", index as u64 + 1, total as u64);
            let Ok(sample) = context.dataset.sample(index) else { continue };
            for question in &sample.questions {
                let Some(answer) = consensus(question) else { continue };
                *questions.by_text.entry(question.text.clone()).or_default().entry(answer).or_default() += 1;
            }
        }
        Ok(questions)
    }

    /// How often each answer is the most frequent one of a question.
    pub fn answer_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (answer, count) in self.by_text.values().flatten() {
            *counts.entry(answer.clone()).or_default() += count;
        }
        counts
    }

    /// The distinct questions.
    pub fn texts(&self) -> impl Iterator<Item = String> + Send + '_ {
        self.by_text.keys().cloned()
    }
}
