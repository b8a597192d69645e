//! The score of an answer against those of several annotators, as a metric and as a target for training.

use serde::Serialize;

use super::normalize::{Normalized, clean, normalize};
use super::protocol::Protocol;
use super::rules::Rules;

/// How an answer that some of the annotators gave becomes a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consensus {
    /// The mean over annotators of min(1, matches among the *other* annotators / 3): VQA v2's metric. Of ten
    /// annotators, 1, 2, 3 and 4 or more matches score 0.3, 0.6, 0.9 and 1.
    #[default]
    LeaveOneOut,
    /// min(1, matches / 3): the short form of the formula, at <https://visualqa.org/evaluation.html>.
    ThreeMatches,
}

impl Consensus {
    /// The score of an answer that `matches` of `annotators` gave, from 0 to 1.
    pub fn score(self, matches: usize, annotators: usize) -> f64 {
        match self {
            Self::LeaveOneOut => leave_one_out(matches, annotators, &[]),
            Self::ThreeMatches => of_three(matches),
        }
    }
}

fn of_three(matches: usize) -> f64 {
    (matches as f64 / 3.0).min(1.0)
}

/// The mean over annotators of min(1, others that match / 3). `twins` has the sizes of the groups of matching
/// annotators that the official program cannot distinguish; without groups each annotator is its own.
pub(super) fn leave_one_out(matches: usize, annotators: usize, twins: &[usize]) -> f64 {
    let others = annotators.saturating_sub(matches) as f64 * of_three(matches);
    let matching = if twins.is_empty() {
        matches as f64 * of_three(matches.saturating_sub(1))
    } else {
        twins.iter().map(|&twins| twins as f64 * of_three(matches.saturating_sub(twins))).sum()
    };
    (others + matching) / annotators.max(1) as f64
}

/// The answers of one question as a protocol compares them. Equal answers are normalised once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ComparedAnswers<'a> {
    /// The different answers before the normalisation, in order of appearance.
    pub distinct: Vec<Answer<'a>>,
    /// For each annotator the place of the answer in `distinct`.
    pub of_annotators: Vec<usize>,
    /// Whether `official` normalises nothing, because all answers are equal.
    pub is_unanimous: bool,
}

/// An answer that some annotators of one question gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer<'a> {
    pub given: &'a str,
    pub compared: Normalized,
    pub annotators: usize,
}

impl<'a> ComparedAnswers<'a> {
    pub(super) fn new<T: AsRef<str>>(protocol: Protocol, answers: &'a [T]) -> Self {
        let mut distinct: Vec<(&str, usize)> = Vec::new();
        let place = |given: &'a T| {
            let known = distinct.iter().position(|&(known, _)| known == given.as_ref());
            let place = known.unwrap_or_else(|| {
                distinct.push((given.as_ref(), 0));
                distinct.len() - 1
            });
            distinct[place].1 += 1;
            place
        };
        let of_annotators = answers.iter().map(place).collect();
        let is_unanimous = protocol == Protocol::Official && {
            let mut cleaned = distinct.iter().map(|(given, _)| clean(given));
            let first = cleaned.next();
            cleaned.all(|answer| Some(answer) == first)
        };
        let compare = |given: &str| {
            if is_unanimous {
                Normalized { text: clean(given).into_owned(), rules: Rules::default() }
            } else {
                normalize(protocol, given)
            }
        };
        let answer = |(given, annotators)| Answer { given, compared: compare(given), annotators };
        Self { distinct: distinct.into_iter().map(answer).collect(), of_annotators, is_unanimous }
    }

    /// The number of annotators whose answer is compared as `text`.
    pub(super) fn matches(&self, text: &str) -> usize {
        let matching = self.distinct.iter().filter(|answer| answer.compared.text == text);
        matching.map(|answer| answer.annotators).sum()
    }
}

/// The distinct answers of one question as a protocol compares them, in order of appearance, each with its
/// score: soft targets for training, for which `answers` are those of all annotators. Of a question whose
/// answers are all equal `official` keeps the text as it is, because the metric compares it so.
pub fn soft_targets<T: AsRef<str>>(
    protocol: Protocol,
    consensus: Consensus,
    answers: &[T],
) -> Vec<(String, f64)> {
    let mut targets: Vec<(String, f64)> = Vec::new();
    let compared = ComparedAnswers::new(protocol, answers);
    for answer in &compared.distinct {
        let text = &answer.compared.text;
        if targets.iter().all(|(known, _)| known != text) {
            targets.push((text.clone(), consensus.score(compared.matches(text), answers.len())));
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_annotators_give_the_published_scores() {
        let scores =
            |consensus: Consensus| (0..=10).map(|count| consensus.score(count, 10)).collect::<Vec<_>>();
        let close = |found: Vec<f64>, expected: [f64; 5]| {
            let expected = expected.into_iter().chain([1.0; 6]);
            found.into_iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12)
        };
        assert!(close(scores(Consensus::LeaveOneOut), [0.0, 0.3, 0.6, 0.9, 1.0]));
        assert!(close(scores(Consensus::ThreeMatches), [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0]));
        assert_eq!(Consensus::LeaveOneOut.score(0, 0), 0.0);
    }

    #[test]
    fn annotators_that_cannot_be_distinguished_do_not_match_each_other() {
        // Ten equal entries: each has no others.
        assert_eq!(leave_one_out(10, 10, &[10]), 0.0);
        assert!((leave_one_out(4, 10, &[2, 2]) - (6.0 + 4.0 * 2.0 / 3.0) / 10.0).abs() < 1e-12);
    }

    #[test]
    fn soft_targets_join_answers_that_the_protocol_takes_for_equal() {
        let answers = ["Two", "2", "two dogs", "a 2"];
        let targets = soft_targets(Protocol::Official, Consensus::ThreeMatches, &answers);
        assert_eq!(targets, [("2".to_owned(), 1.0), ("2 dogs".to_owned(), 1.0 / 3.0)]);
        let unanimous = soft_targets(Protocol::Official, Consensus::LeaveOneOut, &["Yes."; 10]);
        assert_eq!(unanimous, [("Yes.".to_owned(), 1.0)]);
        assert_eq!(soft_targets(Protocol::Evalai, Consensus::LeaveOneOut, &["Yes."; 10])[0].0, "yes");
        assert!(soft_targets::<&str>(Protocol::Strict, Consensus::LeaveOneOut, &[]).is_empty());
    }
}
