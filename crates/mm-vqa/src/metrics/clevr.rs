//! CLEVR's accuracy (Johnson et al., 2017): exact match, by question family and by kind of question.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::accuracy::{Accuracy, Group, groups, score};
use super::error::Result;
use super::id::Id;
use super::json;
use super::matching::{Findings, OnProblem, match_predictions};
use super::predictions::Prediction;

/// A question of `CLEVR_*_questions.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct ClevrQuestion {
    /// The question's number, its id in predictions.
    pub question_index: Id,
    /// The right answer.
    pub answer: String,
    /// The template.
    pub question_family_index: Option<u64>,
    /// The program; its last function is what the question is about.
    #[serde(default)]
    pub program: Vec<ClevrStep>,
}

/// A step of a program.
#[derive(Clone, Debug, Deserialize)]
pub struct ClevrStep {
    /// Its function: `function` in version 1.0, `type` elsewhere.
    #[serde(alias = "type")]
    pub function: String,
}

/// Reads questions.
///
/// # Errors
/// The file cannot be read or has another layout.
pub fn read_questions(path: &Path) -> Result<Vec<ClevrQuestion>> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        questions: Vec<&'a RawValue>,
    }
    let text = mm_data::text::read(path)?;
    let file: File = json::parse(path, &text, "CLEVR questions: an object with `questions`")?;
    json::entries(path, "questions", &file.questions, serde_json::from_str)
}

/// CLEVR's accuracies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClevrReport {
    /// Of all questions.
    pub overall: Accuracy,
    /// By the five kinds of the paper's table 2; empty where the questions have no programs.
    pub by_kind: Vec<Group>,
    /// By the last function of the program.
    pub by_function: Vec<Group>,
    /// By the number of the family.
    pub by_family: Vec<Group>,
    /// What does not correspond.
    pub findings: Findings,
}

impl ClevrReport {
    /// Measures predictions.
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        questions: &[ClevrQuestion],
        predictions: &[Prediction],
        on_problem: OnProblem,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let items: Vec<&ClevrQuestion> = questions.iter().collect();
        let matched =
            match_predictions(items, |it| &it.question_index, predictions, &mut findings, on_problem)?;
        let scored: Vec<(&ClevrQuestion, f64)> = matched
            .into_iter()
            .map(|(it, prediction)| (it, score(prediction.is_some_and(|given| given.answer == it.answer))))
            .collect();
        let families: Vec<Option<String>> = scored
            .iter()
            .map(|(it, _)| it.question_family_index.map(|family| format!("{family:02}")))
            .collect();
        let function = |it: &'_ ClevrQuestion| it.program.last().map(|step| step.function.clone());
        let functions: Vec<Option<String>> = scored.iter().map(|(it, _)| function(it)).collect();
        let scores = || scored.iter().map(|&(_, score)| score);
        let by = |names: &[Option<String>]| groups(names.iter().map(Option::as_deref).zip(scores()));
        let kinds = functions.iter().map(|function| function.as_deref().map(kind));
        Ok(Self {
            overall: Accuracy::of(scores()),
            by_kind: groups(kinds.zip(scores())),
            by_function: by(&functions),
            by_family: by(&families),
            findings,
        })
    }
}

/// The kind of a question by its last function.
fn kind(function: &str) -> &str {
    match function {
        "equal_integer" | "less_than" | "greater_than" => "compare integer",
        _ if function.starts_with("query_") => "query attribute",
        _ if function.starts_with("equal_") => "compare attribute",
        other => other,
    }
}
