//! Relaxed accuracy, ChartQA's metric (Masry et al., 2022, section 5.1), as Pix2Struct's script computes it.

use super::python::float;

/// The usual relative error of a number that counts as right.
pub const RELATIVE_ERROR: f64 = 0.05;

/// Whether an answer is right: a number within `relative_error` of the right number, or else the same text
/// but for upper and lower case. A `%` at the end divides a number by 100. A right answer of 0 is compared as
/// a text, and so are numbers with thousands separators, as the script does.
pub fn relaxed_match(prediction: &str, answer: &str, relative_error: f64) -> bool {
    match (number(prediction), number(answer)) {
        (Some(found), Some(right)) if right != 0.0 => (found - right).abs() / right.abs() <= relative_error,
        _ => prediction.to_lowercase() == answer.to_lowercase(),
    }
}

fn number(text: &str) -> Option<f64> {
    if text.ends_with('%') {
        float(text.trim_end_matches('%')).map(|value| value / 100.0)
    } else {
        float(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_off_by_five_percent_and_texts_by_nothing() {
        for (prediction, answer, expected) in [
            ("105", "100", true),
            ("105.1", "100", false),
            ("-95", "-100", true),
            ("5%", "0.05", true),
            ("5", "5%", false),
            ("5 %", "0.05", true),
            ("0", "0", true),
            ("0.0", "0", false),
            ("1,000", "1000", false),
            ("Yes", "yes", true),
            ("yes ", "yes", false),
            ("", "", true),
            ("nan", "NaN", false),
            ("inf", "inf", false),
        ] {
            assert_eq!(relaxed_match(prediction, answer, RELATIVE_ERROR), expected, "{prediction} {answer}");
        }
    }
}
