//! METEOR's own normalizer for English (`-norm`, punctuation kept), which splits a line into tokens.
//!
//! The input is usually tokenized already (PTB), so most captions pass unchanged; contractions are split
//! again (`ca n't` becomes `ca n 't`), and so are words at hyphens.

use std::collections::HashMap;

/// The words that a period may follow without ending a sentence, from `nonbreaking/english.prefixes`; true if
/// only before a number.
pub(super) type Prefixes = HashMap<String, bool>;

/// Stands for a period of an ellipsis while the other periods are split off: a private-use character.
const ELLIPSIS: char = '\u{e000}';

/// The lower-case tokens of a line.
pub(super) fn tokens(line: &str, prefixes: &Prefixes) -> Vec<String> {
    let mut chars = vec![' '];
    chars.extend(line.chars());
    chars.push(' ');
    let chars = spaced_symbols(&chars);
    let chars = spaced_ellipses(&chars);
    let mut chars = chars;
    for (left, right) in [(NOT_DIGIT, NOT_DIGIT), (DIGIT, NOT_DIGIT), (NOT_DIGIT, DIGIT)] {
        chars = between(&chars, left, ',', right, " , ");
    }
    let chars = plain_quotes_and_dashes(&chars);
    let chars = between(&chars, |c| is_alphanumeric(c) || c == '.', '-', is_alphanumeric, " ");
    let line: String = contractions(chars).into_iter().collect();
    let line = split_periods(&line, prefixes).replace(ELLIPSIS, ".");
    let line: String = line.chars().map(|c| if is_wide_space(c) { ' ' } else { c }).collect();
    line.to_lowercase()
        .split([' ', '\t', '\n', '\r', '\u{c}'])
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect()
}

const DIGIT: fn(char) -> bool = |c| c.is_ascii_digit();
const NOT_DIGIT: fn(char) -> bool = |c| !c.is_ascii_digit();

/// The letters of METEOR: Latin and Cyrillic.
fn is_alphabetic(c: char) -> bool {
    matches!(c,
        'A'..='Z' | 'a'..='z' | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ž' | '\u{400}'..='\u{527}'
        | '\u{a640}'..='\u{a66e}' | '\u{a67e}'..='\u{a697}' | '\u{1d00}'..='\u{1d7f}')
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_digit() || is_alphabetic(c)
}

/// The spaces of typography, which separate tokens as a space does.
fn is_wide_space(c: char) -> bool {
    matches!(c, '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{a0}')
}

/// Puts spaces around every symbol but those with rules of their own.
fn spaced_symbols(chars: &[char]) -> Vec<char> {
    let mut spaced = Vec::with_capacity(chars.len() + 8);
    for &c in chars {
        let stays = is_alphanumeric(c)
            || matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
            || matches!(c, '.' | '\'' | '`' | ',' | '-' | '‘' | '’');
        if stays {
            spaced.push(c);
        } else {
            spaced.extend([' ', c, ' ']);
        }
    }
    spaced
}

/// Makes two or more periods in a row one token.
fn spaced_ellipses(chars: &[char]) -> Vec<char> {
    let mut spaced = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let dots = chars[at..].iter().take_while(|&&c| c == '.').count();
        if dots > 1 {
            spaced.push(' ');
            spaced.extend(std::iter::repeat_n(ELLIPSIS, dots));
            spaced.push(' ');
            at += dots;
        } else {
            spaced.push(chars[at]);
            at += 1;
        }
    }
    spaced
}

/// Replaces `middle` between characters of two classes. Matches do not overlap, as in a regular expression:
/// in `a,b,c` the `b` belongs to the first match.
fn between(
    chars: &[char],
    left: impl Fn(char) -> bool,
    middle: char,
    right: impl Fn(char) -> bool,
    replacement: &str,
) -> Vec<char> {
    let mut replaced = Vec::with_capacity(chars.len() + 4);
    let mut rest = chars;
    while let Some((&first, after)) = rest.split_first() {
        match *rest {
            [one, symbol, other, ..] if symbol == middle && left(one) && right(other) => {
                replaced.push(one);
                replaced.extend(replacement.chars());
                replaced.push(other);
                rest = &rest[3..];
            }
            _ => {
                replaced.push(first);
                rest = after;
            }
        }
    }
    replaced
}

fn plain_quotes_and_dashes(chars: &[char]) -> Vec<char> {
    let line: String = chars.iter().map(|&c| if matches!(c, '`' | '‘' | '’') { '\'' } else { c }).collect();
    let line = line.replace("''", " \" ").replace(['“', '”'], " \" ").replace('–', "-").replace("--", "-");
    line.chars().collect()
}

/// Splits off apostrophes, with the letters after them where letters are on both sides.
fn contractions(mut chars: Vec<char>) -> Vec<char> {
    let not_alphabetic = |c| !is_alphabetic(c);
    let symbol = |c: char| !is_alphabetic(c) && !c.is_ascii_digit();
    chars = between(&chars, not_alphabetic, '\'', not_alphabetic, " ' ");
    chars = between(&chars, symbol, '\'', is_alphabetic, " ' ");
    chars = between(&chars, is_alphabetic, '\'', not_alphabetic, " ' ");
    chars = between(&chars, is_alphabetic, '\'', is_alphabetic, " '");
    between(&chars, DIGIT, '\'', |c| c == 's', " '")
}

/// Splits off the period at the end of a word, unless it belongs to an abbreviation: `a.m.` becomes `am`.
fn split_periods(line: &str, prefixes: &Prefixes) -> String {
    let words: Vec<&str> =
        line.split([' ', '\t', '\n', '\r', '\u{c}']).filter(|word| !word.is_empty()).collect();
    let mut split = String::with_capacity(line.len() + 8);
    for (place, &word) in words.iter().enumerate() {
        let next_starts = |is: fn(&char) -> bool| {
            words.get(place + 1).and_then(|next| next.chars().next()).is_some_and(|first| is(&first))
        };
        match word.strip_suffix('.').filter(|prefix| !prefix.is_empty()) {
            Some(prefix) if prefix.contains('.') && prefix.chars().any(is_alphabetic) => {
                split.push_str(&word.replace('.', ""));
            }
            Some(prefix) => {
                let known = prefixes.get(prefix);
                let stays = known == Some(&false)
                    || next_starts(char::is_ascii_lowercase)
                    || known == Some(&true) && next_starts(char::is_ascii_digit);
                split.push_str(if stays { word } else { prefix });
                split.push_str(if stays { "" } else { " ." });
            }
            None => split.push_str(word),
        }
        split.push(' ');
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(line: &str) -> String {
        let prefixes = [("Dr".to_owned(), false), ("No".to_owned(), true), ("v".to_owned(), false)];
        tokens(line, &prefixes.into()).join(" ")
    }

    #[test]
    fn tokens_follow_the_normalizer_of_meteor() {
        for (line, expected) in [
            ("a man ca n't ride a dog 's bike", "a man ca n 't ride a dog ' s bike"),
            ("A well-known, red-brick house.", "a well known , red brick house ."),
            ("1,000 a,b,c 5,x", "1,000 a , b,c 5 , x"),
            ("wait...what ..", "wait ... what .."),
            ("at 5 a.m. in the u.s.a. today", "at 5 am in the usa today"),
            ("Dr. Who", "dr. who"),
            ("v. s", "v. s"),
            ("No. 5 No. Five end. next", "no. 5 no . five end. next"),
            ("`quoted' “text” ''here''", "' quoted ' \" text \" \" here \""),
            ("50% off & more/less :-rrb-", "50 % off & more / less : -rrb-"),
            ("the 1970's look", "the 1970 's look"),
            ("3\u{a0}1/2 cups – of", "3 1 / 2 cups - of"),
            ("  ", ""),
            ("", ""),
        ] {
            assert_eq!(joined(line), expected, "{line}");
        }
    }
}
