//! The answers that a classifier chooses from.

use crate::metrics::vqa::{Consensus, Protocol, clean, normalize, soft_targets};
use crate::{Error, Result};
use mm_data::Question;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// A list of answers, numbered from 0: the classes of a classifier, or the candidates of a ranking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    all: Vec<String>,
    numbers: HashMap<String, u32>,
}

/// `[answers]`: which answers of the training set become classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswersConfig {
    /// How often an answer is the most frequent one of a question, at least; 9 gives the 3,129 classes of
    /// VQA v2 (Teney et al. 2018).
    pub min_count: usize,
    /// The largest number of answers; the most frequent ones are kept.
    pub max: usize,
}

impl AnswersConfig {
    /// All answers of the training set.
    pub const ALL: Self = Self { min_count: 1, max: usize::MAX };
}

impl Default for AnswersConfig {
    fn default() -> Self {
        Self { min_count: 9, max: 3129 }
    }
}

impl Answers {
    /// A list of answers. One that it has twice has the number of its first place.
    ///
    /// # Errors
    /// It is empty.
    pub fn new(all: Vec<String>) -> Result<Self> {
        if all.is_empty() {
            return Err(Error::Model("the list of answers is empty".to_owned()));
        }
        let mut numbers = HashMap::with_capacity(all.len());
        for (answer, number) in all.iter().zip(0..) {
            numbers.entry(answer.clone()).or_insert(number);
        }
        Ok(Self { all, numbers })
    }

    /// The answers of `counts` that are frequent enough, the most frequent first and equally frequent ones in
    /// alphabetical order.
    ///
    /// # Errors
    /// No answer is frequent enough.
    pub fn most_frequent(counts: BTreeMap<String, usize>, config: AnswersConfig) -> Result<Self> {
        let distinct = counts.len();
        let mut counts: Vec<(String, usize)> =
            counts.into_iter().filter(|(_, count)| *count >= config.min_count).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.truncate(config.max);
        if counts.is_empty() {
            return Err(Error::Model(format!(
                "none of the {distinct} answers of the training set occurs {} times: lower answers.min_count",
                config.min_count
            )));
        }
        Self::new(counts.into_iter().map(|(answer, _)| answer).collect())
    }

    /// The answers in order.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// The number of answers.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of an answer.
    pub fn number(&self, answer: &str) -> Option<u32> {
        self.numbers.get(answer).copied()
    }

    /// The soft target of a question: its answers that the list has, each with its accuracy by VQA v2's short
    /// formula, `min(1, count / 3)`. Empty where the list has none of them.
    pub fn target(&self, question: &Question) -> Vec<(u32, f32)> {
        let scores = answer_scores(question).into_iter();
        scores.filter_map(|(answer, score)| Some((self.number(&answer)?, score))).collect()
    }
}

/// An answer as it becomes a class: normalized as VQA v2's evaluation does where answers differ, so that
/// answers that it takes for equal are one class.
pub(crate) fn normalized(answer: &str) -> String {
    normalize(Protocol::Evalai, answer).text
}

/// The distinct normalized answers of a question, in alphabetical order, each with its score: the accuracy of
/// VQA v2 in its short form, `min(1, count / 3)` of ten answers (Antol et al. 2015). Of fewer answers, as
/// most sets have one a question, an answer that all give scores 1.
pub(crate) fn answer_scores(question: &Question) -> Vec<(String, f32)> {
    let counts = counted(question);
    let full = question.answers.len().clamp(1, 3) as f32;
    counts.into_iter().map(|(answer, count)| (answer, (count as f32 / full).min(1.0))).collect()
}

/// The distinct normalized answers of a question, in alphabetical order, each with its share of all: the
/// weights with which BLIP is trained (Li et al. 2022, appendix).
pub(crate) fn answer_shares(question: &Question) -> Vec<(String, f32)> {
    let share = (question.answers.len().max(1) as f32).recip();
    counted(question).into_iter().map(|(answer, count)| (answer, count as f32 * share)).collect()
}

/// How often each normalized answer of a question was given.
fn counted(question: &Question) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for answer in &question.answers {
        *counts.entry(normalized(answer)).or_default() += 1;
    }
    counts
}

/// The most frequent answer of a question, the alphabetically first of equally frequent ones; VQA v2's own
/// `multiple_choice_answer` where the data set has it.
pub(crate) fn consensus(question: &Question) -> Option<String> {
    if let Some(answer) = &question.multiple_choice_answer {
        return Some(normalized(answer));
    }
    let counts = counted(question);
    let most = counts.values().max().copied()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(answer, _)| answer)
}

/// The accuracy of `answer` against the `given` ones: equality where there is one, VQA v2's by `protocol`
/// where there are several.
pub(crate) fn score(protocol: Protocol, answer: &str, given: &[String]) -> f64 {
    if let [given] = given {
        return f64::from(u8::from(normalized(given) == normalized(answer)));
    }
    let is_unanimous = given.windows(2).all(|pair| pair[0] == pair[1]);
    let compared = match protocol {
        Protocol::Official if is_unanimous => clean(answer).into_owned(),
        _ => normalize(protocol, answer).text,
    };
    let scores = soft_targets(protocol, Consensus::LeaveOneOut, given);
    scores.into_iter().find(|(target, _)| *target == compared).map_or(0.0, |(_, score)| score)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(answers: &[&str]) -> Question {
        Question { answers: answers.iter().map(|&answer| answer.to_owned()).collect(), ..Question::default() }
    }

    #[test]
    fn answers_are_numbered_by_frequency_and_rare_ones_are_left_out() {
        let counts = [("no", 1), ("yes", 2), ("two", 1), ("blue", 2)];
        let counts: BTreeMap<String, usize> =
            counts.into_iter().map(|(answer, count)| (answer.to_owned(), count)).collect();
        let take = |min_count, max| Answers::most_frequent(counts.clone(), AnswersConfig { min_count, max });
        let answers = take(2, 10).unwrap();
        assert_eq!(answers.all(), ["blue", "yes"]);
        assert_eq!((answers.number("yes"), answers.number("two")), (Some(1), None));
        assert_eq!(take(2, 1).unwrap().all(), ["blue"]);
        let error = take(9, 10).unwrap_err();
        assert!(error.to_string().contains("none of the 4 answers"), "{error}");
    }

    #[test]
    fn a_soft_target_has_the_accuracy_of_each_answer() {
        let answers = Answers::new(vec!["yes".into(), "no".into()]).unwrap();
        let mut given = vec!["yes"; 7];
        given.extend(["no", "no", "maybe"]);
        let target = answers.target(&question(&given));
        assert_eq!(target, [(1, 2.0 / 3.0), (0, 1.0)]);
        assert_eq!(answers.target(&question(&["no"])), [(1, 1.0)]);
        assert_eq!(answers.target(&question(&["perhaps"])), []);
        assert_eq!(consensus(&question(&given)).as_deref(), Some("yes"));
        assert_eq!(consensus(&question(&[])), None);
    }

    #[test]
    fn an_answer_that_is_there_twice_has_its_first_number_and_an_empty_list_is_refused() {
        let answers = Answers::new(vec!["a".into(), "b".into(), "a".into()]).unwrap();
        assert_eq!((answers.len(), answers.number("a")), (3, Some(0)));
        assert!(Answers::new(Vec::new()).is_err());
    }
}
