//! Multiple choice by letter.
//!
//! [`parse_choice`] reads an answer by these rules, the first that applies:
//!
//! 1. The answer is a letter alone, or begins with a letter before `)`, `.` or `:`, after an optional `(`:
//!    `B`, `b`, `(B)`, `B.`, `B: a dog`. `A man` does not begin so.
//! 2. The same after `answer:`, `answer is`, `option` or `choice`, the last of them in the answer, in any
//!    case of letters; there a letter before a space counts too: `The answer is B because`.
//! 3. The answer equals the text of an option, but for case, white space at the ends and a final period.
//!
//! A letter beyond the options is no letter. What no rule reads is wrong, and counted.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::accuracy::{Accuracy, Group, groups, score};
use super::error::{Error, Result};
use super::id::Id;
use super::json;
use super::matching::{FindingKind, Findings, OnProblem, match_predictions};
use super::predictions::Prediction;

/// A question with options.
#[derive(Clone, Debug, Deserialize)]
pub struct ChoiceQuestion {
    /// The id.
    #[serde(alias = "id", alias = "qid")]
    pub question_id: Id,
    /// The options, at most 26: `A` is the first.
    pub choices: Vec<String>,
    /// The letter of the right option.
    pub answer: char,
    /// A group, such as a subject.
    pub category: Option<String>,
}

/// Reads questions: a JSON list, or one object a line in a `.jsonl` file.
///
/// # Errors
/// The file cannot be read or has another layout, or an answer is no letter of an option.
pub fn read_questions(path: &Path) -> Result<Vec<ChoiceQuestion>> {
    let text = mm_data::text::read(path)?;
    let layout = "{\"question_id\": 1, \"choices\": [\"...\", \"...\"], \"answer\": \"B\"}";
    let questions: Vec<ChoiceQuestion> = json::list(path, &text, layout)?;
    match questions.iter().find(|it| place(it.answer, it.choices.len()).is_none()) {
        Some(wrong) => Err(Error::invalid(
            path,
            format!(
                "question {}: the answer {} is no letter of its {} choices",
                wrong.question_id,
                wrong.answer,
                wrong.choices.len()
            ),
        )),
        None => Ok(questions),
    }
}

/// The place of the option that an answer chooses; `None` where no rule of this module reads it.
pub fn parse_choice<T: AsRef<str>>(answer: &str, choices: &[T]) -> Option<usize> {
    let answer = answer.trim();
    leading_letter(answer, choices.len(), false)
        .or_else(|| {
            let rest = after_marker(answer)?.trim_start_matches([' ', ':', '\n', '*', '"']);
            leading_letter(rest, choices.len(), true)
        })
        .or_else(|| {
            let plain = |text: &str| text.trim().trim_end_matches('.').to_lowercase();
            let answer = plain(answer);
            choices.iter().position(|choice| plain(choice.as_ref()) == answer)
        })
}

/// The option of a letter that stands alone or before a mark, or before a space too where one is `allowed`.
fn leading_letter(text: &str, choices: usize, space_allowed: bool) -> Option<usize> {
    let text = text.strip_prefix('(').unwrap_or(text);
    let mut characters = text.chars();
    let option = place(characters.next()?, choices)?;
    match characters.next() {
        None | Some(')' | '.' | ':') => Some(option),
        Some(c) if space_allowed && !c.is_alphanumeric() && c != '\'' => Some(option),
        Some(_) => None,
    }
}

/// The text after the last of the words that announce an answer.
fn after_marker(answer: &str) -> Option<&str> {
    const MARKERS: [&str; 4] = ["answer:", "answer is", "option", "choice"];
    // ASCII keeps the length, so that places in one text are places in the other.
    let lower = answer.to_ascii_lowercase();
    let ends = MARKERS.iter().filter_map(|marker| lower.rfind(marker).map(|start| start + marker.len()));
    answer.get(ends.max()?..)
}

fn place(letter: char, choices: usize) -> Option<usize> {
    let letter = letter.to_ascii_uppercase();
    let place = usize::from(u8::try_from(letter).ok()?.checked_sub(b'A')?);
    (place < choices.min(26)).then_some(place)
}

/// The accuracy of multiple choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceReport {
    /// Of all questions.
    pub overall: Accuracy,
    /// By category.
    pub by_category: Vec<Group>,
    /// The mean of 1 / options: what guessing gives.
    pub chance: f64,
    /// What does not correspond. `unreadable_predictions` are those that no rule reads.
    pub findings: Findings,
}

impl ChoiceReport {
    /// Measures predictions.
    ///
    /// # Errors
    /// `on_problem` is to refuse and something does not correspond, or nothing is left to measure.
    pub fn new(
        questions: &[ChoiceQuestion],
        predictions: &[Prediction],
        on_problem: OnProblem,
    ) -> Result<Self> {
        let mut findings = Findings::default();
        let items: Vec<&ChoiceQuestion> = questions.iter().collect();
        let matched = match_predictions(items, |it| &it.question_id, predictions, &mut findings, on_problem)?;
        let mut scored = Vec::with_capacity(matched.len());
        for (question, prediction) in matched {
            let chosen = prediction.and_then(|given| parse_choice(&given.answer, &question.choices));
            if prediction.is_some() && chosen.is_none() {
                findings.add(FindingKind::UnreadablePredictions, &question.question_id);
            }
            let is_right = chosen.is_some() && chosen == place(question.answer, question.choices.len());
            scored.push((question, score(is_right)));
        }
        let chance = Accuracy::of(scored.iter().map(|(it, _)| 1.0 / it.choices.len().max(1) as f64));
        Ok(Self {
            overall: Accuracy::of(scored.iter().map(|&(_, score)| score)),
            by_category: groups(scored.iter().map(|&(it, score)| (it.category.as_deref(), score))),
            chance: chance.mean,
            findings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_the_stated_rules() {
        let choices = ["A cat", "dog", "St. Louis", "no"];
        for (answer, expected) in [
            ("B", Some(1)),
            (" b\n", Some(1)),
            ("(C)", Some(2)),
            ("C.", Some(2)),
            ("D: no", Some(3)),
            ("(B) dog", Some(1)),
            ("Answer: B", Some(1)),
            ("The answer is (C), because", Some(2)),
            ("I choose option D here", Some(3)),
            ("Option A or B? The answer is B", Some(1)),
            ("a cat.", Some(0)),
            ("A cat", Some(0)),
            ("st. louis", Some(2)),
            ("NO", Some(3)),
            ("E", None),
            ("A man", None),
            ("A dog", None),
            ("answer is bdog", None),
            ("cat or dog", None),
            ("", None),
            ("é", None),
            ("the answer is é", None),
        ] {
            assert_eq!(parse_choice(answer, &choices), expected, "{answer:?}");
        }
    }

    #[test]
    fn unread_answers_are_wrong_and_counted() {
        let question = |id: &str, answer| ChoiceQuestion {
            question_id: id.into(),
            choices: vec!["x".into(), "y".into()],
            answer,
            category: Some(id.into()),
        };
        let given = |id: &str, answer: &str| Prediction {
            question_id: id.into(),
            answer: answer.into(),
            confidence: None,
        };
        let questions = [question("1", 'A'), question("2", 'b'), question("3", 'B'), question("4", 'A')];
        let predictions = [given("1", "A"), given("2", "y"), given("3", "neither")];
        let report = ChoiceReport::new(&questions, &predictions, OnProblem::Wrong).unwrap();
        assert_eq!((report.overall.questions, report.overall.percent, report.chance), (4, 50.0, 0.5));
        assert_eq!(report.findings.count(FindingKind::UnreadablePredictions), 1);
        assert_eq!(report.findings.count(FindingKind::MissingPredictions), 1);
        assert_eq!(report.by_category.len(), 4);
    }
}
