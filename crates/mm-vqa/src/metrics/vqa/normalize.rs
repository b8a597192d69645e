//! The normalisations of answers before they are compared.

use std::borrow::Cow;

use super::characters::{is_digit, is_space};
use super::protocol::Protocol;
use super::rules::{Rule, Rules};
use super::words;

/// A normalised text, and the rules that changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalized {
    /// What is compared.
    pub text: String,
    /// The rules that changed the text.
    pub rules: Rules,
}

/// The text as the protocol compares it, where it normalises at all: `official` compares the answers of a
/// unanimous question as [`clean`] leaves them.
pub fn normalize(protocol: Protocol, text: &str) -> Normalized {
    let mut rules = Rules::default();
    let text = match protocol {
        Protocol::Official => {
            let cleaned = clean(text);
            rules.set(Rule::Whitespace, cleaned != text);
            words_of(&without_punctuation(&cleaned, &mut rules), &mut rules)
        }
        Protocol::Evalai => {
            let tokenized = tokenize(text, &mut rules);
            let cleaned = clean(&tokenized);
            rules.set(Rule::Whitespace, cleaned != tokenized);
            words_of(&without_punctuation(&cleaned, &mut rules), &mut rules)
        }
        Protocol::Strict => {
            let lower = lower(text, &mut rules);
            let words: Vec<&str> = lower.split(is_space).filter(|word| !word.is_empty()).collect();
            let joined = words.join(" ");
            rules.set(Rule::Whitespace, joined != lower);
            joined
        }
    };
    rules.set(Rule::Emptied, text.is_empty());
    Normalized { text, rules }
}

/// The text with line feeds and tabs as spaces, without white space at its ends. `official` does this to
/// every text.
pub fn clean(text: &str) -> Cow<'_, str> {
    let text = text.trim_matches(is_space);
    if text.contains(['\n', '\t']) { text.replace(['\n', '\t'], " ").into() } else { text.into() }
}

/// MMF's `word_tokenize`.
fn tokenize(text: &str, rules: &mut Rules) -> String {
    let lower = lower(text, rules);
    let tokenized = lower.replace([',', '?'], "").replace("'s", " 's");
    rules.set(Rule::Tokenization, tokenized != lower);
    let stripped = tokenized.trim_matches(is_space);
    rules.set(Rule::Whitespace, stripped.len() != tokenized.len());
    stripped.to_owned()
}

fn lower(text: &str, rules: &mut Rules) -> String {
    let lower = text.to_lowercase();
    rules.set(Rule::LowerCase, lower != text);
    lower
}

/// The official marks. Each is dropped where the text has it beside a space, or has a comma between digits
/// anywhere; else it becomes a space.
const MARKS: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!',
];

/// The most periods that are dropped: the official program passes `re.UNICODE`, which is 32, as the count.
const MOST_PERIODS: usize = 32;

fn without_punctuation<'a>(text: &'a str, rules: &mut Rules) -> Cow<'a, str> {
    if !text.contains(|c: char| c.is_ascii_punctuation() && c != '\'') {
        return text.into();
    }
    let characters: Vec<char> = text.chars().collect();
    let mut beside_a_space = [false; MARKS.len()];
    let mut digit_comma = false;
    let mut marks = 0;
    for (at, &c) in characters.iter().enumerate() {
        let Some(mark) = MARKS.iter().position(|&mark| mark == c) else { continue };
        let before = at.checked_sub(1).and_then(|at| characters.get(at)).copied();
        let after = characters.get(at + 1).copied();
        marks += 1;
        beside_a_space[mark] |= before == Some(' ') || after == Some(' ');
        digit_comma |= c == ',' && before.is_some_and(is_digit) && after.is_some_and(is_digit);
    }
    rules.set(Rule::Punctuation, marks > 0);
    rules.set(Rule::DigitComma, digit_comma);
    let replaced = characters.iter().filter_map(|&c| match MARKS.iter().position(|&mark| mark == c) {
        None => Some(c),
        Some(mark) if digit_comma || beside_a_space[mark] => None,
        Some(_) => Some(' '),
    });
    without_periods(&replaced.collect::<Vec<_>>(), rules).into()
}

/// Drops periods that no digit follows. A digit before the period does not keep it: the look-behind of the
/// official pattern is mistyped.
fn without_periods(characters: &[char], rules: &mut Rules) -> String {
    let mut dropped = 0;
    let mut out = String::with_capacity(characters.len());
    for (at, &c) in characters.iter().enumerate() {
        if c == '.' && !characters.get(at + 1).copied().is_some_and(is_digit) {
            dropped += 1;
            if dropped <= MOST_PERIODS {
                continue;
            }
        }
        out.push(c);
    }
    rules.set(Rule::Period, dropped > 0);
    rules.set(Rule::PeriodLimit, dropped > MOST_PERIODS);
    out
}

/// Lower case, numbers for number words, no articles, and contractions with their apostrophes.
fn words_of(text: &str, rules: &mut Rules) -> String {
    let lower = lower(text, rules);
    let mut out = String::with_capacity(lower.len());
    for word in lower.split(is_space).filter(|word| !word.is_empty()) {
        let number = words::number(word);
        rules.set(Rule::NumberWord, number.is_some());
        let word = number.unwrap_or(word);
        if words::is_article(word) {
            rules.set(Rule::Article, true);
            continue;
        }
        let contraction = words::contraction(word);
        rules.set(Rule::Contraction, contraction.is_some());
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(contraction.unwrap_or(word));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocol: Protocol, text: &str, expected: &str, rules: &[Rule]) {
        let found = normalize(protocol, text);
        assert_eq!(found.text, expected, "{text:?} by {protocol}");
        assert_eq!(found.rules, rules.iter().copied().collect(), "{text:?} by {protocol}");
    }

    #[test]
    fn the_official_rules_apply_as_published() {
        use Rule::{
            Article, Contraction, DigitComma, Emptied, LowerCase, NumberWord, Period, Punctuation, Whitespace,
        };
        for (text, expected, rules) in [
            ("yes", "yes", &[] as &[Rule]),
            ("\n Yes\tno ", "yes no", &[Whitespace, LowerCase]),
            ("black/white", "black white", &[Punctuation]),
            (
                "black / white",
                "black  white".split("  ").collect::<Vec<_>>().join(" ").as_str(),
                &[Punctuation],
            ),
            ("1,000-2", "10002", &[Punctuation, DigitComma]),
            ("a-b -c", "ab c", &[Punctuation]),
            ("1.", "1", &[Period]),
            ("1.5 U.S.", "1.5 us", &[Period, LowerCase]),
            ("None", "0", &[LowerCase, NumberWord]),
            ("ten", "10", &[NumberWord]),
            ("the man", "man", &[Article]),
            ("dont", "don't", &[Contraction]),
            ("Im", "im", &[LowerCase]),
            ("let's", "let's", &[]),
            ("somebody'd", "somebodyd", &[Contraction]),
            ("the", "", &[Article, Emptied]),
            ("", "", &[Emptied]),
            ("١,٢!", "١٢", &[Punctuation, DigitComma]),
            ("2.²", "2²", &[Period]),
        ] {
            check(Protocol::Official, text, expected, rules);
        }
    }

    #[test]
    fn only_the_first_32_periods_are_dropped() {
        let found = normalize(Protocol::Official, &"a.".repeat(33));
        assert_eq!(found.text, format!("{}.", "a".repeat(33)));
        assert!(found.rules.has(Rule::PeriodLimit));
        assert!(!normalize(Protocol::Official, &"a.".repeat(32)).text.contains('.'));
    }

    #[test]
    fn evalai_drops_commas_and_splits_possessives_first() {
        use Rule::{Contraction, LowerCase, Punctuation, Tokenization};
        check(Protocol::Evalai, "1,000-2", "1000 2", &[Tokenization, Punctuation]);
        check(Protocol::Evalai, "Bob's", "bob 's", &[Tokenization, LowerCase]);
        check(Protocol::Evalai, "thats?", "that's", &[Tokenization, Contraction]);
    }

    #[test]
    fn strict_changes_case_and_white_space_alone() {
        check(Protocol::Strict, " The\n two-  ", "the two-", &[Rule::Whitespace, Rule::LowerCase]);
        check(Protocol::Strict, "none", "none", &[]);
    }

    #[test]
    fn white_space_between_words_that_a_mark_leaves_is_no_change_of_white_space() {
        check(Protocol::Official, "a  b", "b", &[Rule::Article]);
    }
}
