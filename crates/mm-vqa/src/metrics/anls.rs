//! ANLS, the average normalized Levenshtein similarity of answers read in documents (Biten et al., 2019).
//!
//! Texts are compared in lower case, without white space at their ends and with single spaces. The similarity
//! of two is 1 less their edit distance over the longer one's length in characters; an answer scores its
//! largest similarity to a right one, or 0 if that is too small.

use super::python;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The published programs, which differ in the length that is divided by and at the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnlsVariant {
    /// The script of the Robust Reading Competition, which Qwen-VL and lmms-eval took over: divides by the
    /// length before the white space is cleaned, in upper case, and keeps a similarity of exactly 0.5.
    #[default]
    Rrc,
    /// The package `anls` 0.0.2 of PyPI: divides by the length of the cleaned text, and a similarity of
    /// exactly 0.5 scores 0.
    Anls,
}

impl AnlsVariant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Rrc, Self::Anls];

    fn length(self, raw: &str, cleaned: &str) -> usize {
        let text = match self {
            Self::Rrc => raw,
            Self::Anls => cleaned,
        };
        text.to_uppercase().chars().count()
    }
}

impl fmt::Display for AnlsVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rrc => "rrc",
            Self::Anls => "anls",
        })
    }
}

/// The similarities below this score 0.
const THRESHOLD: f64 = 0.5;

/// The score of `prediction`, from 0 to 1; 0 if there are no right answers.
pub fn anls(variant: AnlsVariant, prediction: &str, answers: &[impl AsRef<str>]) -> f64 {
    let cleaned = clean(prediction);
    let distance = |answer: &str| {
        let right = clean(answer);
        let length = variant.length(answer, &right).max(variant.length(prediction, &cleaned));
        if length == 0 { 0.0 } else { strsim::levenshtein(&right, &cleaned) as f64 / length as f64 }
    };
    let Some(least) = answers.iter().map(|answer| distance(answer.as_ref())).min_by(f64::total_cmp) else {
        return 0.0;
    };
    let is_near = match variant {
        AnlsVariant::Rrc => 1.0 - least >= THRESHOLD,
        AnlsVariant::Anls => least < THRESHOLD,
    };
    if is_near { 1.0 - least } else { 0.0 }
}

/// The mean of the scores; 0 without any.
pub fn mean_anls(scores: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for score in scores {
        sum += score;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

fn clean(text: &str) -> String {
    python::split(&text.to_lowercase()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variants_differ_at_the_threshold_and_in_the_length() {
        let scores =
            |prediction: &str, answers: &[&str]| AnlsVariant::ALL.map(|it| anls(it, prediction, answers));
        assert_eq!(scores(" The  Cat ", &["the cat"]), [1.0, 1.0]);
        assert_eq!(scores("ab", &["ax"]), [0.5, 0.0]);
        // One edit over the 8 or the 4 characters of the longer text.
        assert_eq!(scores("  ab  cd", &["ab c"]), [1.0 - 1.0 / 8.0, 1.0 - 1.0 / 5.0]);
        assert_eq!(scores("total 12", &["nothing", "total 13"]), [1.0 - 1.0 / 8.0; 2]);
        assert_eq!(scores("", &[" "]), [1.0, 1.0]);
        assert_eq!(scores("abc", &["xyz"]), [0.0, 0.0]);
        assert_eq!(scores("abc", &[]), [0.0, 0.0]);
        assert_eq!(mean_anls([1.0, 0.5]), 0.75);
        assert_eq!(mean_anls([]), 0.0);
    }
}
