//! Questions about documents: ANLS of DocVQA and InfographicVQA (Mathew et al., 2021), in both published
//! variants.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::accuracy::{Accuracy, Group, groups, score};
use super::anls::{AnlsVariant, anls};
use super::error::Result;
use super::id::Id;
use super::json;
use super::matching::{FindingKind, Findings, OnProblem, match_predictions};
use super::predictions::Prediction;

/// A question with its right answers.
#[derive(Clone, Debug, Deserialize)]
pub struct DocVqaQuestion {
    /// The id.
    #[serde(rename = "questionId", alias = "question_id")]
    pub question_id: Id,
    /// The right answers; a test set has none.
    #[serde(default)]
    pub answers: Vec<String>,
    /// What the answer is found in, such as `table/list`; a question may have several.
    #[serde(default)]
    pub question_types: Vec<String>,
}

/// Reads the questions of a file as the Robust Reading Competition publishes it.
///
/// # Errors
/// The file cannot be read or has another layout.
pub fn read_questions(path: &Path) -> Result<Vec<DocVqaQuestion>> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        data: Vec<&'a RawValue>,
    }
    let text = mm_data::text::read(path)?;
    let file: File = json::parse(path, &text, "DocVQA questions: an object with `data`")?;
    json::entries(path, "data", &file.data, serde_json::from_str)
}

/// The metrics of answers about documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DocVqaReport {
    /// The mean [`AnlsVariant::Rrc`], which the competition and lmms-eval give.
    pub anls_rrc: Accuracy,
    /// The mean [`AnlsVariant::Anls`], of the package `anls`.
    pub anls_package: Accuracy,
    /// Answers that equal a right one but for upper and lower case and white space.
    pub exact: Accuracy,
    /// As `anls_rrc`, by type of question; one of several types counts for each.
    pub by_question_type: Vec<Group>,
    /// What does not correspond.
    pub findings: Findings,
}

impl DocVqaReport {
    /// Measures predictions.
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        questions: &[DocVqaQuestion],
        predictions: &[Prediction],
        on_problem: OnProblem,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let mut items = Vec::with_capacity(questions.len());
        for question in questions {
            if question.answers.is_empty() {
                findings.add(FindingKind::AnnotationsWithoutAnswers, &question.question_id);
            } else {
                items.push(question);
            }
        }
        let matched = match_predictions(items, |it| &it.question_id, predictions, &mut findings, on_problem)?;
        let scores = |variant: AnlsVariant| -> Vec<f64> {
            let one = |(question, prediction): &(&DocVqaQuestion, Option<&Prediction>)| {
                prediction.map_or(0.0, |given| anls(variant, &given.answer, &question.answers))
            };
            matched.iter().map(one).collect()
        };
        let [rrc, package] = AnlsVariant::ALL.map(scores);
        let typed = matched.iter().zip(&rrc).flat_map(|((question, _), &score)| {
            question.question_types.iter().map(move |name| (Some(name.as_str()), score))
        });
        Ok(Self {
            by_question_type: groups(typed),
            exact: Accuracy::of(package.iter().map(|&similarity| score(similarity == 1.0))),
            anls_rrc: Accuracy::of(rrc.iter().copied()),
            anls_package: Accuracy::of(package),
            findings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_measured_by_both_variants_and_by_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("val.json");
        let text = r#"{"dataset_name": "docvqa", "data": [
            {"questionId": 1, "answers": ["ITC Limited", "itc"], "question_types": ["layout", "form"]},
            {"questionId": 2, "question": "?", "answers": ["ax"], "question_types": ["form"], "docId": 5},
            {"questionId": 3, "question": "?"}]}"#;
        std::fs::write(&path, text).unwrap();
        let questions = read_questions(&path).unwrap();
        let given = |id: u64, answer: &str| Prediction {
            question_id: id.into(),
            answer: answer.into(),
            confidence: None,
        };
        let predictions = [given(1, " itc  LIMITED"), given(2, "ab")];
        let error = DocVqaReport::new(&questions, &predictions, OnProblem::Refuse).unwrap_err().to_string();
        assert!(error.contains("annotations have no answers"), "{error}");
        let report = DocVqaReport::new(&questions, &predictions, OnProblem::Wrong).unwrap();
        assert_eq!((report.anls_rrc.percent, report.anls_package.percent), (75.0, 50.0));
        assert_eq!((report.exact.percent, report.exact.questions), (50.0, 2));
        let by_type: Vec<_> =
            report.by_question_type.iter().map(|it| (it.name.as_str(), it.accuracy.mean)).collect();
        assert_eq!(by_type, [("form", 0.75), ("layout", 1.0)]);
        std::fs::write(&path, r#"{"data": [{"question": "?"}]}"#).unwrap();
        assert!(
            read_questions(&path).unwrap_err().to_string().contains("data[0]: missing field `questionId`")
        );
    }
}
