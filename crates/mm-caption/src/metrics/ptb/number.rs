//! Numbers, dates, fractions and telephone numbers.

use super::characters::is_digit;
use super::scanner::{Becomes, Best, Text};

/// The end of a number: a sign, and digits with `.`, `,` or `:` between them or before the first.
fn number_end(text: &Text, start: usize) -> Option<usize> {
    let first = if matches!(text.at(start), '-' | '+') { start + 1 } else { start };
    let mut end = text.run(first, is_digit);
    while matches!(text.at(end), '.' | ':' | ',' | '\u{ad}' | '\u{66b}' | '\u{66c}') {
        let digits = text.run(end + 1, is_digit);
        if digits == end + 1 {
            break;
        }
        end = digits;
    }
    (end > first).then_some(end)
}

/// Dates, numbers, superscripts and fractions.
pub fn numbers(text: &Text, start: usize, best: &mut Best) {
    let first = text.at(start);
    if is_digit(first) {
        date(text, start, best);
    }
    if let Some(end) = number_end(text, start) {
        best.offer_all(end, Becomes::Word);
    }
    if let Some(end) = raised(text, start) {
        best.offer_all(end, Becomes::Same);
    }
    if is_digit(first) {
        let digits = digit_counts(text, 1, start, 1, 4);
        let separated = step(text, digits, start, |c| matches!(c, '-' | ' ' | '\u{a0}'));
        let whole = digits | digit_counts(text, separated, start, 1, 4);
        let slash = step(text, whole, start, |c| c == '\\');
        let slash = step(text, slash, start, |c| c == '/')
            | step(text, whole, start, |c| matches!(c, '/' | '\u{2044}'));
        if let Some(end) = last(digit_counts(text, slash, start, 1, 4), start) {
            best.offer_all(end, Becomes::Joined);
        }
    }
    let fraction = match first {
        '\u{bc}' => "1/4",
        '\u{bd}' => "1/2",
        '\u{be}' => "3/4",
        '\u{2153}' => "1/3",
        '\u{2154}' => "2/3",
        '\u{2155}'..='\u{215e}' => return best.offer_all(start + 1, Becomes::Same),
        _ => return,
    };
    best.offer_all(start + 1, Becomes::Fixed(fraction));
}

fn date(text: &Text, start: usize, best: &mut Best) {
    let is_sign = |c| matches!(c, '-' | '/');
    let month = step(text, digit_counts(text, 1, start, 1, 2), start, is_sign);
    let day = step(text, digit_counts(text, month, start, 1, 2), start, is_sign);
    if let Some(end) = last(digit_counts(text, day, start, 2, 4), start) {
        best.offer_all(end, Becomes::Same);
    }
}

/// The end of a superscript or subscript number.
fn raised(text: &Text, start: usize) -> Option<usize> {
    let sign = matches!(text.at(start), '\u{207a}' | '\u{207b}' | '\u{208a}' | '\u{208b}');
    let first = start + usize::from(sign);
    let is_super = |c| matches!(c, '\u{2070}' | '\u{b9}' | '\u{b2}' | '\u{b3}' | '\u{2074}'..='\u{2079}');
    let end = text.run(first, is_super).max(text.run(first, |c| matches!(c, '\u{2080}'..='\u{2089}')));
    (end > first).then_some(end)
}

/// Two or three parts with slashes between, each with up to two hyphens: `and/or`, `black-and-white/red`.
pub fn slashed(text: &Text, start: usize, best: &mut Best) {
    if let Some(mut end) = hyphened(text, start) {
        for _ in 0..2 {
            let slash = if text.at(end) == '\\' { end + 1 } else { end };
            let part = if text.at(slash) == '/' { hyphened(text, slash + 1) } else { None };
            let Some(part) = part else { break };
            best.offer_all(part, Becomes::Same);
            end = part;
        }
    }
}

/// The end of letters and digits with up to two parts of letters after hyphens.
fn hyphened(text: &Text, start: usize) -> Option<usize> {
    let mut end = text.run(start, |c| c.is_ascii_alphanumeric());
    if end == start {
        return None;
    }
    for _ in 0..2 {
        let letters = text.run(end + 1, |c| c.is_ascii_alphabetic());
        if text.at(end) != '-' || letters == end + 1 {
            break;
        }
        end = letters;
    }
    Some(end)
}

/// Telephone numbers, which may contain spaces.
pub fn telephone(text: &Text, start: usize, best: &mut Best) {
    if !matches!(text.at(start), '(' | '+' | '0'..='9') {
        return;
    }
    let is_sign = |c| matches!(c, '-' | ' ' | '\u{a0}');
    let is_dot = |c| c == '.';
    let ascii = |from, low, high| ascii_counts(text, from, start, low, high);
    let open = step(text, 1, start, |c| c == '(');
    let area = step(text, ascii(open, 2, 3), start, |c| c == ')');
    let area = area | step(text, area, start, |c| matches!(c, ' ' | '\u{a0}'));
    let plus = step(text, 1, start, |c| c == '+');
    let country = 1 | plus | step(text, plus, start, |c| c == '+');
    let prefix = step(text, ascii(country, 2, 4), start, is_sign);
    let area = area | step(text, ascii(country | prefix, 2, 4), start, is_sign);
    let middle = ascii(area, 3, 4);
    let spaced = ascii(middle | step(text, middle, start, is_sign), 3, 5);

    let prefix = 1 | step(text, ascii(country, 2, 4), start, is_dot);
    let area = step(text, ascii(prefix, 2, 4), start, is_dot);
    let dotted = ascii(step(text, ascii(area, 3, 4), start, is_dot), 3, 5);
    if let Some(end) = last(spaced | dotted, start) {
        best.offer_all(end, Becomes::Joined);
    }
}

// Sets of positions: bit n stands for `start + n`. No rule above is longer than 40 characters.

/// The positions after one character of a class.
fn step(text: &Text, from: u64, start: usize, class: impl Fn(char) -> bool) -> u64 {
    let mut found = 0;
    let mut rest = from;
    while rest != 0 {
        let offset = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        if offset < 63 && class(text.at(start + offset)) {
            found |= 1 << (offset + 1);
        }
    }
    found
}

fn counts(text: &Text, from: u64, start: usize, bounds: [usize; 2], class: fn(char) -> bool) -> u64 {
    let [low, high] = bounds;
    let mut found = 0;
    let mut reached = from;
    for count in 1..=high {
        reached = step(text, reached, start, class);
        if count >= low {
            found |= reached;
        }
    }
    found
}

/// The positions after `low` to `high` digits.
fn digit_counts(text: &Text, from: u64, start: usize, low: usize, high: usize) -> u64 {
    counts(text, from, start, [low, high], is_digit)
}

fn ascii_counts(text: &Text, from: u64, start: usize, low: usize, high: usize) -> u64 {
    counts(text, from, start, [low, high], |c| c.is_ascii_digit())
}

/// The last position of a set.
fn last(set: u64, start: usize) -> Option<usize> {
    (set != 0).then(|| start + 63 - set.leading_zeros() as usize)
}
