//! Words of questions, to find equal ones.

/// The words of a question in lower case: runs of letters and digits.
pub(super) fn words(question: &str) -> Vec<String> {
    let words = question.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}
