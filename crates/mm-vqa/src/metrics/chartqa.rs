//! Questions about charts: ChartQA's relaxed accuracy.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::accuracy::{Accuracy, score};
use super::error::Result;
use super::id::Id;
use super::json;
use super::matching::{Findings, OnProblem, match_predictions};
use super::predictions::Prediction;
use super::relaxed::{RELATIVE_ERROR, relaxed_match};

/// A question with its right answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartQaQuestion {
    /// The place of the question in its file, from 0: the files have no ids.
    pub question_id: Id,
    /// The right answer.
    pub answer: String,
}

/// Reads the questions of `test_human.json` and the like.
///
/// # Errors
/// The file cannot be read or has another layout.
pub fn read_questions(path: &Path) -> Result<Vec<ChartQaQuestion>> {
    #[derive(Deserialize)]
    struct Entry {
        label: Label,
    }
    /// A text, or a number in some copies.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Label {
        Text(String),
        Number(serde_json::Number),
    }
    let text = mm_data::text::read(path)?;
    let list: Vec<&RawValue> = json::parse(path, &text, "ChartQA: a list of questions")?;
    let entries: Vec<Entry> = json::entries(path, "", &list, serde_json::from_str)?;
    let question = |(place, entry): (u64, Entry)| ChartQaQuestion {
        question_id: place.into(),
        answer: match entry.label {
            Label::Text(text) => text,
            Label::Number(number) => number.to_string(),
        },
    };
    Ok((0..).zip(entries).map(question).collect())
}

/// The metrics of answers about charts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChartQaReport {
    /// Relaxed accuracy: numbers may be off by 5 %.
    pub relaxed: Accuracy,
    /// Answers that equal the right one but for upper and lower case.
    pub exact: Accuracy,
    /// What does not correspond.
    pub findings: Findings,
}

impl ChartQaReport {
    /// Measures predictions.
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        questions: &[ChartQaQuestion],
        predictions: &[Prediction],
        on_problem: OnProblem,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let items: Vec<&ChartQaQuestion> = questions.iter().collect();
        let matched = match_predictions(items, |it| &it.question_id, predictions, &mut findings, on_problem)?;
        let share = |is_right: fn(&str, &str) -> bool| {
            Accuracy::of(matched.iter().map(|(question, prediction)| {
                score(prediction.is_some_and(|given| is_right(&given.answer, &question.answer)))
            }))
        };
        Ok(Self {
            relaxed: share(|given, right| relaxed_match(given, right, RELATIVE_ERROR)),
            exact: share(|given, right| given.to_lowercase() == right.to_lowercase()),
            findings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_numbered_by_their_place_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test_human.json");
        let text = r#"[{"imgname": "a.png", "query": "?", "label": "100"},
            {"imgname": "b.png", "query": "?", "label": 0.57},
            {"imgname": "b.png", "query": "?", "label": "Yes"}]"#;
        std::fs::write(&path, text).unwrap();
        let questions = read_questions(&path).unwrap();
        let given = |id: u64, answer: &str| Prediction {
            question_id: id.into(),
            answer: answer.into(),
            confidence: None,
        };
        let predictions = [given(0, "104"), given(1, "57%"), given(2, "yes")];
        let report = ChartQaReport::new(&questions, &predictions, OnProblem::Refuse).unwrap();
        assert_eq!((report.relaxed.percent, report.exact.percent), (100.0, 33.33));
        let report = ChartQaReport::new(&questions, &predictions[..1], OnProblem::Wrong).unwrap();
        assert_eq!(report.relaxed.percent, 33.33);
        std::fs::write(&path, r#"[{"query": "?"}]"#).unwrap();
        assert!(read_questions(&path).unwrap_err().to_string().contains("missing field `label`"));
    }
}
