//! Predictions for questions: which question has one, and what does not correspond.

use std::collections::HashMap;

use serde::Serialize;

use super::error::{Error, Result};
use super::id::Id;
use super::predictions::Prediction;

/// Something that makes files of questions, answers and predictions not correspond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Questions without an annotation. They are not measured.
    QuestionsWithoutAnnotation,
    /// Annotations of questions that the file of questions does not have. They are measured.
    AnnotationsWithoutQuestion,
    /// Annotations with an empty list of answers. They are not measured.
    AnnotationsWithoutAnswers,
    /// Ids that several questions have. The last question counts.
    RepeatedQuestions,
    /// Ids that several annotations have. The last annotation counts.
    RepeatedAnnotations,
    /// Ids that several predictions have. The last prediction counts.
    RepeatedPredictions,
    /// Predictions for ids that no measured question has. They are ignored.
    UnknownPredictions,
    /// Measured questions without a prediction.
    MissingPredictions,
    /// Predictions that are empty or white space. They are measured, and are never refused.
    EmptyPredictions,
    /// Predictions that the parser of the metric cannot read as one of the answers. They are measured as
    /// wrong (by POPE as yes), and are never refused.
    UnreadablePredictions,
    /// Entailed questions of GQA that are not in the file of questions or have no prediction. They are left
    /// out of the consistency.
    UnknownEntailedQuestions,
    /// Questions that the file of choices of GQA does not have. They are left out of validity and
    /// plausibility.
    QuestionsWithoutChoices,
}

impl FindingKind {
    /// The kind in words, after a number.
    pub fn describe(self) -> &'static str {
        match self {
            Self::QuestionsWithoutAnnotation => "questions have no annotation",
            Self::AnnotationsWithoutQuestion => "annotations are of questions that the questions do not have",
            Self::AnnotationsWithoutAnswers => "annotations have no answers",
            Self::RepeatedQuestions => "ids are of several questions",
            Self::RepeatedAnnotations => "ids are of several annotations",
            Self::RepeatedPredictions => "ids are of several predictions",
            Self::UnknownPredictions => "predictions are for unknown questions",
            Self::MissingPredictions => "questions have no prediction",
            Self::EmptyPredictions => "predictions are empty",
            Self::UnreadablePredictions => "predictions cannot be read as an answer",
            Self::UnknownEntailedQuestions => "entailed questions are not in the files",
            Self::QuestionsWithoutChoices => "questions are not in the file of choices",
        }
    }

    fn is_refused(self) -> bool {
        !matches!(self, Self::EmptyPredictions | Self::UnreadablePredictions)
    }
}

/// How many questions have a problem, and which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The problem.
    pub kind: FindingKind,
    /// The number of ids that have it.
    pub count: usize,
    /// The first ids, at most five.
    pub first: Vec<Id>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first: Vec<_> = self.first.iter().map(ToString::to_string).collect();
        let more = if self.count > first.len() { ", ..." } else { "" };
        write!(to, "{} {} ({}{more})", self.count, self.kind.describe(), first.join(", "))
    }
}

/// All problems, each kind at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Findings(pub Vec<Finding>);

/// The number of ids that a finding names.
const NAMED: usize = 5;

impl Findings {
    /// Adds a problem of an id.
    pub(super) fn add(&mut self, kind: FindingKind, id: &Id) {
        let at = self.0.iter().position(|finding| finding.kind == kind).unwrap_or_else(|| {
            self.0.push(Finding { kind, count: 0, first: Vec::new() });
            self.0.len() - 1
        });
        let finding = &mut self.0[at];
        finding.count += 1;
        if finding.first.len() < NAMED {
            finding.first.push(id.clone());
        }
    }

    /// The number of ids with a problem.
    pub fn count(&self, kind: FindingKind) -> usize {
        self.0.iter().find(|finding| finding.kind == kind).map_or(0, |finding| finding.count)
    }

    /// Fails where a problem is of a kind that makes numbers incomparable.
    fn refuse(&self) -> Result<()> {
        let problems: Vec<_> =
            self.0.iter().filter(|finding| finding.kind.is_refused()).map(ToString::to_string).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Mismatch(format!(
            "questions and predictions do not correspond: {}; correct the files, or count a question without \
             prediction as wrong (`wrong`) or leave it out (`skip`)",
            problems.join("; ")
        )))
    }
}

/// What to do with files that do not correspond. All problems are counted and named in each case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnProblem {
    /// Fail, as the official evaluation of VQA v2 does.
    #[default]
    Refuse,
    /// Go on; a question without prediction is answered wrongly.
    Wrong,
    /// Go on; a question without prediction is not measured. The number is of another set of questions.
    Skip,
}

/// A question with its prediction.
pub type Predicted<'a, T> = (T, Option<&'a Prediction>);

/// Gives each item the prediction of its id, in the order of the items, and adds to `findings` what does not
/// correspond.
///
/// # Errors
/// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
pub(super) fn match_predictions<'a, T>(
    items: Vec<T>,
    id: impl Fn(&T) -> &Id,
    predictions: &'a [Prediction],
    findings: &mut Findings,
    on_problem: OnProblem,
) -> Result<Vec<Predicted<'a, T>>> {
    let items = last_of_each(items, &id, FindingKind::RepeatedQuestions, findings);
    let by_id = by_id(predictions, findings);
    let mut matched = Vec::with_capacity(items.len());
    let mut used = 0;
    for item in items {
        let prediction = by_id.get(id(&item)).copied();
        used += usize::from(prediction.is_some());
        match prediction {
            None => findings.add(FindingKind::MissingPredictions, id(&item)),
            Some(prediction) if prediction.answer.trim().is_empty() => {
                findings.add(FindingKind::EmptyPredictions, id(&item));
            }
            Some(_) => {}
        }
        if prediction.is_some() || on_problem != OnProblem::Skip {
            matched.push((item, prediction));
        }
    }
    if used < by_id.len() {
        let mut unknown = by_id;
        matched.iter().for_each(|(item, _)| {
            unknown.remove(id(item));
        });
        let mut unknown: Vec<&Id> = unknown.into_keys().collect();
        unknown.sort();
        unknown.into_iter().for_each(|id| findings.add(FindingKind::UnknownPredictions, id));
    }
    if on_problem == OnProblem::Refuse {
        findings.refuse()?;
    }
    if matched.is_empty() {
        let found: Vec<_> = findings.0.iter().map(ToString::to_string).collect();
        return Err(Error::Mismatch(format!("there is no question to measure: {}", found.join("; "))));
    }
    Ok(matched)
}

fn by_id<'a>(predictions: &'a [Prediction], findings: &mut Findings) -> HashMap<&'a Id, &'a Prediction> {
    let mut by_id = HashMap::with_capacity(predictions.len());
    for prediction in predictions {
        if by_id.insert(&prediction.question_id, prediction).is_some() {
            findings.add(FindingKind::RepeatedPredictions, &prediction.question_id);
        }
    }
    by_id
}

/// The items without those whose id a later item has.
pub(super) fn last_of_each<T>(
    items: Vec<T>,
    id: impl Fn(&T) -> &Id,
    kind: FindingKind,
    findings: &mut Findings,
) -> Vec<T> {
    let mut last = HashMap::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        if last.insert(id(item), place).is_some() {
            findings.add(kind, id(item));
        }
    }
    if last.len() == items.len() {
        return items;
    }
    let keep: Vec<bool> = items.iter().enumerate().map(|(place, item)| last[id(item)] == place).collect();
    items.into_iter().zip(keep).filter_map(|(item, keep)| keep.then_some(item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(pairs: &[(&str, &str)]) -> Vec<Prediction> {
        let prediction = |&(id, answer): &(&str, &str)| Prediction {
            question_id: id.into(),
            answer: answer.into(),
            confidence: None,
        };
        pairs.iter().map(prediction).collect()
    }

    fn matched(
        ids: &[&str],
        predicted: &[(&str, &str)],
        on_problem: OnProblem,
    ) -> Result<(String, Findings)> {
        let predictions = predictions(predicted);
        let mut findings = Findings::default();
        let ids: Vec<Id> = ids.iter().map(|&id| id.into()).collect();
        let items = match_predictions(ids, |id| id, &predictions, &mut findings, on_problem)?;
        let answer = |prediction: Option<&Prediction>| prediction.map_or("-", |it| &it.answer).to_owned();
        let all: Vec<_> = items.iter().map(|(id, it)| format!("{id}={}", answer(*it))).collect();
        Ok((all.join(" "), findings))
    }

    #[test]
    fn everything_that_does_not_correspond_is_counted_and_named() {
        let predicted = [("1", "a"), ("9", "b"), ("1", "c"), ("2", " ")];
        let (all, findings) = matched(&["1", "2", "3", "2"], &predicted, OnProblem::Wrong).unwrap();
        assert_eq!(all, "1=c 3=- 2= ");
        let found: Vec<_> = findings.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "1 ids are of several questions (2)",
                "1 ids are of several predictions (1)",
                "1 questions have no prediction (3)",
                "1 predictions are empty (2)",
                "1 predictions are for unknown questions (9)",
            ]
        );
        assert_eq!(matched(&["1", "2", "3"], &predicted, OnProblem::Skip).unwrap().0, "1=c 2= ");
    }

    #[test]
    fn refusing_names_the_problems_and_allows_empty_answers() {
        let error = matched(&["1", "3"], &[("1", "a"), ("9", "b")], OnProblem::Refuse).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("1 questions have no prediction (3); 1 predictions are for unknown"),
            "{error}"
        );
        assert_eq!(matched(&["1"], &[("1", "")], OnProblem::Refuse).unwrap().0, "1=");
        let error = matched(&["1"], &[("2", "a")], OnProblem::Skip).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no question to measure: 1 questions have no prediction"),
            "{error}"
        );
    }

    #[test]
    fn at_most_five_ids_are_named() {
        let ids = ["1", "2", "3", "4", "5", "6", "7"];
        let findings = matched(&ids, &[("7", "a")], OnProblem::Wrong).unwrap().1;
        assert_eq!(findings.0[0].to_string(), "6 questions have no prediction (1, 2, 3, 4, 5, ...)");
        assert_eq!(findings.count(FindingKind::MissingPredictions), 6);
    }
}
