//! Words, contractions, acronyms and compounds.

use super::abbreviations::{is_starter, keeps_period, keeps_period_before, keeps_period_early};
use super::characters::{
    END, SOFT_HYPHEN, is_alphanumeric, is_blank, is_digit, is_hyphen, is_inner_punctuation, is_letter,
    is_plain_letter, unaccented,
};
use super::quote::{apostrophe, auxiliary, loose_apostrophe, not_contraction};
use super::scanner::{Becomes, Best, Text};
use super::web::tag_end;

/// Words that are two tokens, and the number of letters of the second.
const SPLIT: [(&str, usize); 6] =
    [("cannot", 3), ("gonna", 2), ("gotta", 2), ("lemme", 2), ("gimme", 2), ("wanna", 2)];

/// Whether the word between two positions is one of two tokens.
pub fn is_split(text: &Text, start: usize, end: usize) -> bool {
    SPLIT.iter().any(|(word, _)| word.len() == end - start && text.literal(start, word).is_some())
}

/// `c++`, and words of two tokens: `can not`, `gon na`, `'t was`.
pub fn split_words(text: &Text, start: usize, best: &mut Best) {
    if let Some(end) = text.longest_of(start, &["c++", "c#", "f#"]) {
        best.offer_all(end, Becomes::Same);
    }
    for (word, second) in SPLIT {
        if let Some(end) = text.literal(start, word) {
            best.offer(end, end - second, Becomes::Same);
        }
    }
    for (word, second) in [("'twas", 3), ("'tis", 2)] {
        if let Some(end) = text.literal(start, word) {
            best.offer(end, end - second, Becomes::Same);
        }
    }
}

/// The end of a letter, of which an entity such as `&eacute;` is one.
pub fn letter_end(text: &Text, start: usize) -> Option<usize> {
    if is_letter(text.at(start)) {
        return Some(start + 1);
    }
    if text.at(start) != '&'
        || !matches!(text.at(start + 1).to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u')
    {
        return None;
    }
    text.longest_of(start + 2, &["acute;", "grave;", "uml;"])
}

/// The end of a word: letters and digits, and parts joined by `.`, `!` or `?`, that each begin with a letter.
fn word_end(text: &Text, start: usize) -> Option<usize> {
    let mut end = letter_end(text, start)?;
    loop {
        if let Some(next) = letter_end(text, end) {
            end = next;
        } else if is_digit(text.at(end)) {
            end += 1;
        } else if let ('.' | '!' | '?', Some(next)) = (text.at(end), letter_end(text, end + 1)) {
            end = next;
        } else {
            return Some(end);
        }
    }
}

/// Words, before contractions too, and words that are written with an apostrophe.
pub fn words(text: &Text, start: usize, best: &mut Best) {
    let word = word_end(text, start);
    if let Some(end) = word
        && let Some(seen) = auxiliary(text, end)
    {
        best.offer(seen, end, Becomes::Word);
    }
    // "do" of "don't": letters that end in another one than n.
    let letters = text.run(start, |c| c.is_ascii_alphabetic() || c == SOFT_HYPHEN);
    if letters > start + 1
        && let Some(seen) = not_contraction(text, letters - 1)
    {
        let stem = text.slice(start, letters - 1).iter().rev().find(|&&c| c != SOFT_HYPHEN);
        if stem.is_some_and(|c| !c.eq_ignore_ascii_case(&'n')) {
            best.offer(seen, letters - 1, Becomes::Word);
        }
    }
    if let Some(end) = word {
        best.offer_all(end, Becomes::Word);
    }
    for end in with_apostrophe(text, start).into_iter().flatten() {
        best.offer_all(end, Becomes::Same);
    }
    // The y' of y'all.
    if text.literal(start, "y").is_some()
        && let Some(end) = apostrophe(text, start + 1)
        && is_plain_letter(text.at(end))
    {
        best.offer(end + 1, end, Becomes::Same);
    }
}

/// The ends of words that contain an apostrophe.
fn with_apostrophe(text: &Text, start: usize) -> [Option<usize>; 4] {
    [after_apostrophe(text, start), listed(text, start), one_letter(text, start), after_vowel(text, start)]
}

/// The end of `'em`, `'90s`, `'n'` and their like.
fn after_apostrophe(text: &Text, start: usize) -> Option<usize> {
    let rest = apostrophe(text, start)?;
    let decade = matches!(text.at(rest), '2'..='9').then(|| text.literal(rest + 1, "0s")).flatten();
    let rock = text.literal(rest, "n").map(|end| apostrophe(text, end).unwrap_or(end));
    [decade, rock, text.longest_of(rest, &["em", "til", "till", "cause"])].into_iter().flatten().max()
}

/// The end of a word of a list. Its apostrophe is a straight one, but for the words that end in it.
fn listed(text: &Text, start: usize) -> Option<usize> {
    let straight = ["nor'easter", "c'mon", "e'er", "s'mores", "ev'ry", "li'l", "nat'l", "cont'd.", "cont'd"];
    let mut end = text.longest_of(start, &straight);
    for stem in ["dunkin", "somethin", "ol"] {
        end = end.max(text.literal(start, stem).and_then(|stem| apostrophe(text, stem)));
    }
    end
}

/// The end of `l'`, `o'clock` and of a letter, an apostrophe and two letters or more, as `O'Malley` is.
fn one_letter(text: &Text, start: usize) -> Option<usize> {
    let first = text.at(start);
    let elided =
        matches!(first, 'l' | 'L' | 'd' | 'D' | 'j' | 'J').then(|| apostrophe(text, start + 1)).flatten();
    let apostrophe_end = loose_apostrophe(text, start + 1)?;
    let letters = text.run(apostrophe_end, is_plain_letter);
    let named = (matches!(first, 'A'..='H' | 'J'..='X' | 'Z' | 'n') && letters >= apostrophe_end + 2)
        .then_some(letters);
    let clock = first.eq_ignore_ascii_case(&'o').then(|| text.literal(apostrophe_end, "o")).flatten();
    [elided, named, clock].into_iter().flatten().max()
}

/// The end of letters that end in a vowel, an apostrophe, and letters that begin with a vowel or capital.
fn after_vowel(text: &Text, start: usize) -> Option<usize> {
    let letters = text.run(start, is_plain_letter);
    let is_vowel = |c: char| matches!(c.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u' | 'y');
    if letters < start + 2 || !is_vowel(text.at(letters - 1)) {
        return None;
    }
    let next = loose_apostrophe(text, letters)?;
    matches!(text.at(next), 'a' | 'e' | 'i' | 'o' | 'u' | 'A'..='Z')
        .then(|| text.run(next + 1, is_plain_letter))
}

/// Names and prefixes with a sign of their own.
pub fn special_words(text: &Text, start: usize, best: &mut Best) {
    let plain = ["-lrb-", "-rrb-", "-lcb-", "-rcb-", "-lsb-", "-rsb-", "c.d.s", "pro-", "anti-"];
    if let Some(end) = text.longest_of(start, &plain) {
        best.offer_all(end, Becomes::Same);
    }
    if let Some(end) = text.longest_of(start, &["s&p-500", "s&amp;p-500", "s&ls", "s&amp;ls"]) {
        best.offer_all(end, Becomes::Ampersand);
    }
    for (stem, rest) in [("cap", "n"), ("c", "est")] {
        let rest = text
            .literal(start, stem)
            .and_then(|end| apostrophe(text, end))
            .and_then(|end| text.literal(end, rest));
        if let Some(end) = rest {
            best.offer_all(end, Becomes::Same);
        }
    }
}

/// One past the last letter of an acronym, letters with a period between any two: `U.S` of `U.S.`.
fn acronym_end(text: &Text, start: usize) -> Option<usize> {
    let is_letter = |position| text.at(position).is_ascii_alphabetic();
    if !is_letter(start) {
        return None;
    }
    let mut end = start + 1;
    while text.at(end) == '.' && is_letter(end + 1) {
        end += 2;
    }
    // Compounds of countries.
    let pairs = [
        "canada-u.s",
        "sino-u.s",
        "korean-u.s",
        "eu-u.s",
        "japan-u.s",
        "non-u.s",
        "u.s.-u.k",
        "u.s.-u.s.s.r",
    ];
    Some(text.longest_of(start, &pairs).map_or(end, |pair| pair.max(end)))
}

/// Abbreviations and acronyms with their period, and words before a period that punctuation follows.
pub fn abbreviations(text: &Text, start: usize, best: &mut Best) {
    if let Some(end) = acronym_end(text, start)
        && text.at(end) == '.'
    {
        let period = end + 1;
        if let Some(seen) = sentence_start(text, period) {
            // "I." is a word and a period, "U.S." an acronym and a period that is not written twice.
            best.offer(seen, if period == start + 2 { end } else { period }, Becomes::Same);
        }
        best.offer_all(period, Becomes::Same);
    }
    let letters = text.run(start, |c| unaccented(c).is_ascii_alphabetic());
    let stem = if text.at(letters) == '.' && text.literal(letters + 1, "d.").is_some() {
        letters + 2
    } else {
        letters
    };
    for end in [stem, letters] {
        if end > start && end < start + 9 && text.at(end) == '.' {
            let word: String = text.slice(start, end).iter().map(|&c| unaccented(c)).collect();
            if keeps_period_early(&word) {
                if [text.at(end + 1), text.at(end + 2)].contains(&END) {
                    best.offer(end + 1, end, Becomes::Dotted);
                } else {
                    best.offer(end + 3, end + 1, Becomes::Same);
                }
            }
            if keeps_period(&word) {
                best.offer_all(end + 1, Becomes::Same);
            }
            let next = if is_blank(text.at(end + 1)) { end + 2 } else { end + 1 };
            if keeps_period_before(&word, text.at(next)) {
                best.offer(next + 1, end + 1, Becomes::Same);
            }
        }
    }
    if let Some(end) = acronym_end(text, start)
        && is_blank(text.at(end))
    {
        best.offer(end + 1, end, Becomes::Same);
    }
    if let Some(end) = word_end(text, start)
        && text.at(end) == '.'
        && is_inner_punctuation(text.at(end + 1))
    {
        best.offer(end + 2, end + 1, Becomes::Word);
    }
}

/// One past the space after a word or tag that begins a sentence, if one follows the acronym that ends at
/// `period`.
fn sentence_start(text: &Text, period: usize) -> Option<usize> {
    let start = text.run(period, is_blank);
    let letters = text.run(start, |c| unaccented(c).is_ascii_alphabetic());
    if start == period {
        return None;
    }
    let end = if letters == start {
        tag_end(text, start)?
    } else {
        let end = if text.at(letters) == '.' { letters + 1 } else { letters };
        let rest = text.slice(start + 1, end).iter().map(|&c| unaccented(c));
        let word: String = [text.at(start)].into_iter().chain(rest).collect();
        is_starter(&word).then_some(end)?
    };
    is_blank(text.at(end)).then_some(end + 1)
}

/// Compounds: parts with hyphens between, and capitals with `&` or `+` between.
pub fn compounds(text: &Text, start: usize, best: &mut Best) {
    let offer = |best: &mut Best, end: usize, becomes: Becomes| {
        if text.at(end) == '.' && is_inner_punctuation(text.at(end + 1)) {
            best.offer(end + 2, end + 1, becomes);
        }
        best.offer_all(end, becomes);
    };
    if text.at(start).is_ascii_alphanumeric() {
        let hyphen = text.run(start, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | ',' | SOFT_HYPHEN));
        hyphenated(text, hyphen, &mut |end| offer(best, end, Becomes::Word));
    }
    parts(text, start, &mut |end| offer(best, end, Becomes::Same));
    let mut end = text.run(start, |c| c.is_ascii_uppercase());
    let mut joined = None;
    while end > start {
        let sign = if matches!(text.at(end), '+' | '&') { end + 1 } else { end };
        let sign = text.literal(end, "&amp;").unwrap_or(sign);
        let capitals = text.run(sign, |c| c.is_ascii_uppercase());
        if sign == end || capitals == sign {
            break;
        }
        (end, joined) = (capitals, Some(capitals));
    }
    if let Some(end) = joined {
        offer(best, end, Becomes::Ampersand);
    }
}

/// Calls `found` with each end of the parts that follow the hyphen at `hyphen`.
fn hyphenated(text: &Text, hyphen: usize, found: &mut impl FnMut(usize)) {
    let mut open = vec![hyphen];
    while let Some(hyphen) = open.pop() {
        if text.at(hyphen) != '-' {
            continue;
        }
        let start = hyphen + 1;
        let letters = text.run(start, |c| c.is_ascii_alphanumeric() || c == SOFT_HYPHEN);
        if letters > start {
            found(letters);
            open.push(letters);
        }
        // An acronym of two letters or more, with its last period.
        let mut end = start;
        while text.at(end).is_ascii_alphabetic() && text.at(end + 1) == '.' {
            end += 2;
            if end > start + 2 {
                found(end);
            }
        }
        if end > start + 2 {
            open.push(end);
        }
    }
}

/// Calls `found` with each end of parts of letters and digits joined by hyphens, from `start`. A part may
/// begin as `d'or` does.
fn parts(text: &Text, start: usize, found: &mut impl FnMut(usize)) {
    let mut open = vec![start];
    while let Some(start) = open.pop() {
        let elided = match text.at(start) {
            'd' | 'D' | 'o' | 'O' | 'l' | 'L' => loose_apostrophe(text, start + 1)
                .filter(|&end| is_alphanumeric(text.at(end)))
                .map(|end| end + 1),
            _ => None,
        };
        for start in [elided, Some(start)].into_iter().flatten() {
            let end = text.run(start, is_alphanumeric);
            if end > start {
                found(end);
                if is_hyphen(text.at(end)) {
                    open.push(end + 1);
                }
            }
        }
    }
}
