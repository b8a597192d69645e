//! Apostrophes, quotation marks and the contractions that begin with them.

use super::characters::{END, is_blank};
use super::scanner::{Becomes, Best, Text};

/// The end of an apostrophe: straight, curly, of Windows-1252, or `&apos;`.
pub fn apostrophe(text: &Text, start: usize) -> Option<usize> {
    match text.at(start) {
        '\'' | '\u{92}' | '\u{2019}' => Some(start + 1),
        '&' => text.literal(start, "&apos;"),
        _ => None,
    }
}

/// The end of an apostrophe or of another mark that is written for one within a word.
pub fn loose_apostrophe(text: &Text, start: usize) -> Option<usize> {
    match text.at(start) {
        '`' | '\u{91}' | '\u{2018}' | '\u{201b}' => Some(start + 1),
        _ => apostrophe(text, start),
    }
}

/// The end of `'s`, `'ve` and their like.
pub fn auxiliary(text: &Text, start: usize) -> Option<usize> {
    let rest = apostrophe(text, start)?;
    let one = matches!(text.at(rest), 's' | 'm' | 'd' | 'S' | 'M' | 'D').then_some(rest + 1);
    one.or_else(|| text.longest_of(rest, &["re", "ve", "ll"]))
}

/// The end of `n't`.
pub fn not_contraction(text: &Text, start: usize) -> Option<usize> {
    text.literal(loose_apostrophe(text, text.literal(start, "n")?)?, "t")
}

/// `'s` and `n't` before a character that is no letter.
pub fn contractions_before_text(text: &Text, start: usize, best: &mut Best) {
    for end in [auxiliary(text, start), not_contraction(text, start)].into_iter().flatten() {
        let next = text.at(end);
        if next != END && !next.is_ascii_alphabetic() {
            best.offer(end + 1, end, Becomes::Quoted);
        }
    }
}

/// Quotation marks, and contractions at the text's end.
pub fn quotes(text: &Text, start: usize, best: &mut Best) {
    let first = text.at(start);
    let year = apostrophe(text, start).filter(|&end| {
        text.at(end).is_ascii_digit() && text.at(end + 1).is_ascii_digit() && is_blank(text.at(end + 2))
    });
    if let Some(end) = year {
        best.offer(end + 3, end + 2, Becomes::Same);
    }
    let double = if first == '"' { Some(start + 1) } else { text.literal(start, "&quot;") };
    let double = double.or_else(|| text.literal(start, "''"));
    if let Some(end) = double {
        best.offer_all(end, Becomes::Fixed("''"));
    }
    let single = apostrophe(text, start);
    let one = if is_mark(first) { Some(start + 1) } else { single };
    let two = if is_mark(first) && is_mark(text.at(start + 1)) { Some(start + 2) } else { None };
    let after = text.at(start + 2);
    if first == '\'' && text.at(start + 1).is_ascii_alphabetic() && !ends_line(after) {
        best.offer(start + 3, start + 1, Becomes::Same);
    }
    for end in [two, one].into_iter().flatten() {
        best.offer_all(end, Becomes::Quoted);
    }
    for end in [auxiliary(text, start), not_contraction(text, start)].into_iter().flatten() {
        best.offer_all(end, Becomes::Quoted);
    }
}

/// White space that the peer takes for the end of a quoted word.
fn ends_line(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{a0}' | END)
}

fn is_mark(c: char) -> bool {
    matches!(c, '`' | '\u{91}'..='\u{94}' | '\u{ab}' | '\u{bb}')
        || matches!(c, '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}')
}

/// Appends `matched` with straight quotation marks.
pub fn write_straight(token: &mut String, matched: &[char]) {
    for &c in matched {
        match c {
            '\u{91}' | '\u{2018}' | '\u{201b}' | '\u{2039}' => token.push('`'),
            '\u{92}' | '\u{2019}' | '\u{203a}' => token.push('\''),
            '\u{93}' | '\u{201c}' | '\u{ab}' => token.push_str("``"),
            '\u{94}' | '\u{201d}' | '\u{bb}' => token.push_str("''"),
            c => token.push(c),
        }
    }
    if token.contains('&') {
        *token = token.to_lowercase().replace("&apos;", "'");
    }
}
