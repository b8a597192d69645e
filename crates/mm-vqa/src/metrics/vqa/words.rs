//! The words that the official evaluation replaces.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a lower-case word becomes before contractions are looked up: `none` is 0 too.
pub(super) fn number(word: &str) -> Option<&'static str> {
    Some(match word {
        "none" | "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        _ => return None,
    })
}

/// Whether the word is dropped.
pub(super) fn is_article(word: &str) -> bool {
    matches!(word, "a" | "an" | "the")
}

/// The word with its apostrophes.
pub(super) fn contraction(word: &str) -> Option<&'static str> {
    CONTRACTIONS.get(word).copied()
}

/// The official pairs without those that change nothing: `let's` and `she's` are their own contractions, and
/// `Im`, `Ive`, `Id've` and `I'dve` never equal a word in lower case.
static CONTRACTIONS: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    include_str!("contractions.txt").lines().filter_map(|line| line.split_once(' ')).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contractions_are_the_official_ones_that_change_a_word() {
        assert_eq!(CONTRACTIONS.len(), 114);
        assert!(CONTRACTIONS.iter().all(|(word, with)| word != with && *word == word.to_lowercase()));
        assert_eq!(contraction("somebody'd"), Some("somebodyd"));
        assert_eq!(contraction("let's"), None);
    }
}
