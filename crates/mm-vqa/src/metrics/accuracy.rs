//! Means of scores, of a set and of its groups.

use std::collections::BTreeMap;

use serde::Serialize;

/// The mean score of some questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// The number of questions.
    pub questions: usize,
    /// The mean in percent, rounded to two decimals as Python's `round` does.
    pub percent: f64,
    /// The mean, not rounded, from 0 to 1; 0 without questions.
    pub mean: f64,
}

impl Accuracy {
    /// The mean of scores from 0 to 1, added in their order.
    pub fn of(scores: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = Sum::default();
        scores.into_iter().for_each(|score| sum.add(score));
        sum.accuracy()
    }
}

/// The mean score of the questions of one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// The name of the group in the data set's words; [`NO_GROUP`] for questions without one.
    pub name: String,
    /// The mean.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// The name of the group of questions whose annotation names none.
pub const NO_GROUP: &str = "(none)";

/// The mean score of each group, sorted by name; empty where no question has a group.
pub(super) fn groups<'a>(scores: impl IntoIterator<Item = (Option<&'a str>, f64)>) -> Vec<Group> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for (name, score) in scores {
        sums.entry(name.unwrap_or(NO_GROUP)).or_default().add(score);
    }
    if sums.keys().all(|&name| name == NO_GROUP) {
        return Vec::new();
    }
    let group = |(name, sum): (&str, Sum)| Group { name: name.to_owned(), accuracy: sum.accuracy() };
    sums.into_iter().map(group).collect()
}

#[derive(Default)]
struct Sum {
    questions: usize,
    sum: f64,
}

impl Sum {
    fn add(&mut self, score: f64) {
        self.questions += 1;
        self.sum += score;
    }

    fn accuracy(&self) -> Accuracy {
        let questions = self.questions.max(1) as f64;
        Accuracy {
            questions: self.questions,
            percent: round_2(100.0 * self.sum / questions),
            mean: self.sum / questions,
        }
    }
}

/// The number with two decimals: the nearest, and of two equally near ones the even, as `round(x, 2)`.
pub(super) fn round_2(value: f64) -> f64 {
    format!("{value:.2}").parse().unwrap_or(value)
}

/// A true answer scores 1.
pub(super) fn score(is_right: bool) -> f64 {
    f64::from(u8::from(is_right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_as_python_rounds() {
        for (value, expected) in
            [(3.125, 3.12), (3.375, 3.38), (2.675, 2.67), (66.66666, 66.67), (0.0, 0.0), (100.0, 100.0)]
        {
            assert_eq!(round_2(value), expected, "{value}");
        }
    }

    #[test]
    fn groups_are_sorted_and_questions_without_one_are_named() {
        let found = groups([(Some("b"), 1.0), (None, 0.5), (Some("a"), 0.0), (Some("b"), 0.0)]);
        let found: Vec<_> = found.iter().map(|group| (group.name.as_str(), group.accuracy.mean)).collect();
        assert_eq!(found, [("(none)", 0.5), ("a", 0.0), ("b", 0.5)]);
        assert!(groups([(None, 1.0)]).is_empty());
        assert_eq!(Accuracy::of([]), Accuracy::default());
    }
}
