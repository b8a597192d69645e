//! The accuracy of predicted answers on a set of questions.

use rayon::prelude::*;
use serde::Serialize;

use super::super::accuracy::{Accuracy, Group, groups};
use super::super::error::Result;
use super::super::id::Id;
use super::super::matching::{Findings, OnProblem, Predicted, match_predictions};
use super::super::predictions::Prediction;
use super::consensus::{ComparedAnswers, leave_one_out};
use super::files::{AnsweredQuestion, VqaSet};
use super::normalize::{clean, normalize};
use super::protocol::Protocol;
use super::rules::{RuleTally, RuleUse};

/// The accuracy of a set of predictions under one protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VqaAccuracy {
    /// The rules of comparison.
    pub protocol: Protocol,
    /// The mean over all questions.
    pub overall: Accuracy,
    /// The mean by `answer_type`.
    pub by_answer_type: Vec<Group>,
    /// The mean by `question_type`.
    pub by_question_type: Vec<Group>,
    /// How many predictions and answers each rule of the normalisation changed.
    pub rules: Vec<RuleUse>,
    /// The questions whose answers are all equal; `official` alone treats them apart.
    pub unanimous: Unanimous,
    /// What does not correspond in the files.
    pub findings: Findings,
    /// The score of each question, in the order of the annotations.
    #[serde(skip)]
    pub per_question: Vec<QuestionScore>,
}

/// Questions whose human answers are all equal. `official` normalises neither side of them, so that `Yes` is
/// wrong where ten annotators said `yes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unanimous {
    /// The number of these questions.
    pub questions: usize,
    /// Their predictions that the rules would have changed.
    pub changed_by_rules: usize,
    /// Their predictions that are wrong and would be right if both sides were normalised.
    pub wrong_without_rules: usize,
}

/// The score of one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuestionScore {
    /// The question's id.
    pub question_id: Id,
    /// The question, where its file is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The type of the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question_type: Option<String>,
    /// The type of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_type: Option<String>,
    /// The prediction; `None` where there is none.
    pub answer: Option<String>,
    /// The prediction as it was compared.
    pub compared: Option<String>,
    /// The number of annotators with an equal answer.
    pub matches: usize,
    /// The number of annotators.
    pub annotators: usize,
    /// The accuracy, from 0 to 1.
    pub score: f64,
}

impl VqaAccuracy {
    /// Measures the predictions for a set. Per question this is the mean over annotators of min(1, matches
    /// among the other annotators / 3).
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        protocol: Protocol,
        set: VqaSet,
        predictions: &[Prediction],
        on_problem: OnProblem,
    ) -> Result<Self> {
        let VqaSet { questions, mut findings } = set;
        let matched = match_predictions(questions, |(id, _)| id, predictions, &mut findings, on_problem)?;
        let partial: Vec<Partial> = matched
            .into_par_iter()
            .with_min_len(1024)
            .fold(Partial::default, |mut partial, question| {
                partial.add(protocol, question);
                partial
            })
            .collect();
        let whole = partial.into_iter().reduce(Partial::merge).unwrap_or_default();
        let scores = &whole.scores;
        let by = |group: fn(&QuestionScore) -> Option<&str>| {
            groups(scores.iter().map(|question| (group(question), question.score)))
        };
        Ok(Self {
            protocol,
            overall: Accuracy::of(scores.iter().map(|question| question.score)),
            by_answer_type: by(|question| question.answer_type.as_deref()),
            by_question_type: by(|question| question.question_type.as_deref()),
            rules: whole.rules.into_uses(),
            unanimous: whole.unanimous,
            findings,
            per_question: whole.scores,
        })
    }
}

/// The results of some successive questions.
#[derive(Default)]
struct Partial {
    scores: Vec<QuestionScore>,
    rules: RuleTally,
    unanimous: Unanimous,
}

impl Partial {
    fn add(&mut self, protocol: Protocol, ((id, question), prediction): Predicted<(Id, AnsweredQuestion)>) {
        let compared = ComparedAnswers::new(protocol, &question.answers);
        compared.distinct.iter().for_each(|answer| self.rules.count_answer(answer));
        self.unanimous.questions += usize::from(compared.is_unanimous);
        let predicted = prediction.map(|prediction| self.compare(protocol, &prediction.answer, &compared));
        let matches = predicted.as_deref().map_or(0, |predicted| compared.matches(predicted));
        let annotators = question.answers.len();
        let twins = match &predicted {
            Some(predicted) if protocol == Protocol::Official => {
                twins_of_matches(&question.twins, &compared, predicted)
            }
            _ => Vec::new(),
        };
        self.scores.push(QuestionScore {
            question_id: id,
            question: question.question,
            question_type: question.question_type,
            answer_type: question.answer_type,
            answer: prediction.map(|prediction| prediction.answer.clone()),
            score: leave_one_out(matches, annotators, &twins),
            compared: predicted,
            matches,
            annotators,
        });
    }

    /// The prediction as it is compared with `answers`.
    fn compare(&mut self, protocol: Protocol, prediction: &str, answers: &ComparedAnswers) -> String {
        let normalized = normalize(protocol, prediction);
        if !answers.is_unanimous {
            self.rules.count_prediction(prediction, &normalized);
            return normalized.text;
        }
        let cleaned = clean(prediction);
        self.unanimous.changed_by_rules += usize::from(normalized.text != cleaned);
        let would_match = answers.distinct.first().is_some_and(|answer| {
            answer.compared.text != cleaned && normalize(protocol, answer.given).text == normalized.text
        });
        self.unanimous.wrong_without_rules += usize::from(would_match);
        cleaned.into_owned()
    }

    fn merge(mut self, later: Self) -> Self {
        self.scores.extend(later.scores);
        self.rules = self.rules.merge(later.rules);
        self.unanimous.questions += later.unanimous.questions;
        self.unanimous.changed_by_rules += later.unanimous.changed_by_rules;
        self.unanimous.wrong_without_rules += later.unanimous.wrong_without_rules;
        self
    }
}

/// The sizes of the groups of twins among the answers that are compared as `predicted`.
fn twins_of_matches(twins: &[u32], compared: &ComparedAnswers, predicted: &str) -> Vec<usize> {
    let mut sizes = vec![0; twins.len()];
    for (&group, &answer) in twins.iter().zip(&compared.of_annotators) {
        if let Some(size) = sizes.get_mut(group as usize) {
            *size += usize::from(compared.distinct[answer].compared.text == predicted);
        }
    }
    sizes.retain(|&size| size > 0);
    sizes
}
