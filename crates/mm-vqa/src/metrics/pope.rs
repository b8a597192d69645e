//! POPE (Li et al., 2023): yes-or-no questions about objects that an image has or has not.
//!
//! Answers are read as the published script reads them: the first sentence, without commas; a word `no`, `No`
//! or `not` makes it no, and anything else is yes. Answers without a word `yes` that become yes are counted.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::id::Id;
use super::json;
use super::matching::{FindingKind, Findings, OnProblem, match_predictions};
use super::predictions::Prediction;

/// A question of `coco_pope_*.json`, which has one object a line.
#[derive(Clone, Debug, Deserialize)]
pub struct PopeQuestion {
    /// The id, from 1 in each file.
    pub question_id: Id,
    /// Whether the object is in the image.
    pub label: Label,
    /// `random`, `popular` or `adversarial`, in files that hold all three.
    pub category: Option<String>,
}

/// A right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// The object is there.
    Yes,
    /// It is not.
    No,
}

/// Reads questions, one object a line, whatever the extension, or a JSON list.
///
/// # Errors
/// The file cannot be read or has another layout.
pub fn read_questions(path: &Path) -> Result<Vec<PopeQuestion>> {
    let text = mm_data::text::read(path)?;
    let layout = "{\"question_id\": 1, \"label\": \"yes\"}";
    if text.trim_start().starts_with('[') {
        return json::list(path, &text, layout);
    }
    json::lines(path, &text, layout)
}

/// Reads an answer as the published script does.
pub fn parse_answer(answer: &str) -> Label {
    let sentence = answer.split('.').next().unwrap_or_default().replace(',', "");
    let is_no = sentence.split(' ').any(|word| matches!(word, "No" | "not" | "no"));
    if is_no { Label::No } else { Label::Yes }
}

/// POPE's numbers, from 0 to 1. `None` is a quotient by zero.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PopeScores {
    /// The number of questions.
    pub questions: usize,
    /// Yes is right and predicted.
    pub true_positives: usize,
    /// No is right and yes predicted: the hallucinated objects.
    pub false_positives: usize,
    /// No is right and predicted.
    pub true_negatives: usize,
    /// Yes is right and not predicted.
    pub false_negatives: usize,
    /// Right answers over questions.
    pub accuracy: f64,
    /// True positives over predicted yes.
    pub precision: Option<f64>,
    /// True positives over right yes.
    pub recall: Option<f64>,
    /// The harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Predicted yes over questions; about 0.5 is right.
    pub yes_ratio: f64,
}

/// POPE's numbers of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PopeReport {
    /// Of all questions.
    pub overall: PopeScores,
    /// By category, where the questions have one.
    pub by_category: BTreeMap<String, PopeScores>,
    /// What does not correspond. `unreadable_predictions` are those that were read as yes without a word
    /// `yes`.
    pub findings: Findings,
}

impl PopeReport {
    /// Measures predictions. A question without prediction is answered wrongly where `on_problem` says so:
    /// yes where no is right, and no where yes is.
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        questions: &[PopeQuestion],
        predictions: &[Prediction],
        on_problem: OnProblem,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let items: Vec<&PopeQuestion> = questions.iter().collect();
        let matched = match_predictions(items, |it| &it.question_id, predictions, &mut findings, on_problem)?;
        let mut counts = [[0; 2]; 2];
        let mut by_category: BTreeMap<&str, [[usize; 2]; 2]> = BTreeMap::new();
        for (question, prediction) in matched {
            let said_yes = match prediction {
                Some(prediction) => {
                    let says_yes = parse_answer(&prediction.answer) == Label::Yes;
                    if says_yes && !has_yes(&prediction.answer) {
                        findings.add(FindingKind::UnreadablePredictions, &question.question_id);
                    }
                    says_yes
                }
                None => question.label == Label::No,
            };
            let (label, said) = (usize::from(question.label == Label::Yes), usize::from(said_yes));
            counts[label][said] += 1;
            if let Some(category) = &question.category {
                by_category.entry(category).or_default()[label][said] += 1;
            }
        }
        let by_category = by_category.into_iter();
        Ok(Self {
            overall: PopeScores::new(counts),
            by_category: by_category
                .map(|(name, counts)| (name.to_owned(), PopeScores::new(counts)))
                .collect(),
            findings,
        })
    }
}

fn has_yes(answer: &str) -> bool {
    answer.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("yes"))
}

impl PopeScores {
    /// The numbers of `counts[right answer is yes][predicted yes]`.
    fn new(counts: [[usize; 2]; 2]) -> Self {
        let [[true_negatives, false_positives], [false_negatives, true_positives]] = counts;
        let questions: usize = counts.iter().flatten().sum();
        let ratio = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        let said_yes = true_positives + false_positives;
        Self {
            questions,
            true_positives,
            false_positives,
            true_negatives,
            false_negatives,
            accuracy: ratio(true_positives + true_negatives, questions).unwrap_or(0.0),
            precision: ratio(true_positives, said_yes),
            recall: ratio(true_positives, true_positives + false_negatives),
            f1: ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives),
            yes_ratio: ratio(said_yes, questions).unwrap_or(0.0),
        }
    }
}
