//! Tags, addresses of web pages and mail, names of accounts and files.

use super::characters::{END, is_blank, is_digit};
use super::scanner::{Becomes, Best, Text};
use super::word::letter_end;

/// The end of an HTML or SGML tag.
pub fn tag_end(text: &Text, start: usize) -> Option<usize> {
    if text.at(start) != '<' {
        return None;
    }
    let first = text.at(start + 1);
    if matches!(first, '!' | '?') {
        let is_name = text.at(start + 2).is_ascii_alphabetic() || text.at(start + 2) == '-';
        let close = text.run(start + 2, |c| !matches!(c, '>' | '\n' | '\r' | END));
        return (is_name && text.at(close) == '>').then_some(close + 1);
    }
    let mut end = if first == '/' { name_end(text, start + 2)? } else { name_end(text, start + 1)? };
    if first != '/' {
        while let Some(next) = attribute_end(text, end) {
            end = next;
        }
        let slash = text.run(end, |c| c == ' ');
        end = if text.at(slash) == '/' { slash + 1 } else { end };
    }
    let close = text.run(end, |c| c == ' ');
    (text.at(close) == '>').then_some(close + 1)
}

/// The end of the name of a tag or an attribute.
fn name_end(text: &Text, start: usize) -> Option<usize> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-');
    text.at(start).is_ascii_alphabetic().then(|| text.run(start, is_inner))
}

/// The end of an attribute, with a value or without, after at least one space.
fn attribute_end(text: &Text, start: usize) -> Option<usize> {
    let name = text.run(start, |c| c == ' ');
    let end = if name > start { name_end(text, name)? } else { return None };
    let equals = text.run(end, |c| c == ' ');
    if text.at(equals) != '=' {
        return Some(end);
    }
    let value = text.run(equals + 1, |c| c == ' ');
    let value_end = match text.at(value) {
        mark @ ('"' | '\'') => {
            let close = text.run(value + 1, |c| c != mark && c != END);
            (text.at(close) == mark).then_some(close + 1)
        }
        _ => None,
    };
    value_end.or(Some(end))
}

/// Tags, with their spaces as U+00A0.
pub fn tags(text: &Text, start: usize, best: &mut Best) {
    if let Some(end) = tag_end(text, start) {
        best.offer_all(end, Becomes::Spaced);
    }
}

/// Whether a line can contain an address, without which the rules for them are not tried.
pub fn may_have_address(line: &str) -> bool {
    line.contains("://")
        || line.as_bytes().windows(4).any(|part| {
            [*b".com", *b".net", *b".org", *b".edu", *b"www."]
                .iter()
                .any(|end| part.eq_ignore_ascii_case(end))
        })
}

/// Addresses and the names of accounts and topics.
pub fn addresses(text: &Text, start: usize, best: &mut Best) {
    if text.has_address {
        for end in [full(text, start), likely(text, start), mail(text, start)].into_iter().flatten() {
            best.offer_all(end, Becomes::Same);
        }
    }
    let name = match text.at(start) {
        '@' if text.at(start + 1).is_ascii_alphabetic() || text.at(start + 1) == '_' => {
            text.run(start + 1, |c| c.is_ascii_alphanumeric() || c == '_')
        }
        '#' => std::iter::successors(Some(start + 1), |&end| letter_end(text, end)).last().unwrap_or(start),
        _ => return,
    };
    if name > start + 1 {
        best.offer_all(name, Becomes::Same);
    }
}

/// The longest run from `start` of characters that are no white space and not in `not`, of at least `least`
/// characters, whose last one is not in `not_last`.
fn run_without(text: &Text, start: usize, not: &str, not_last: &str, least: usize) -> Option<usize> {
    let is_blank = |c| matches!(c, ' ' | '\t' | '\n' | '\u{c}' | '\r' | END);
    let mut end = text.run(start, |c| !is_blank(c) && !not.contains(c));
    while end >= start + least {
        if !not_last.contains(text.at(end - 1)) {
            return Some(end);
        }
        end -= 1;
    }
    None
}

/// The end of an address with its scheme.
fn full(text: &Text, start: usize) -> Option<usize> {
    let rest = text.longest_of(start, &["http://", "https://"])?;
    run_without(text, rest, "\"<>|(){}", ".!?(){},-", 2)
}

/// The end of an address without a scheme, with its path.
fn likely(text: &Text, start: usize) -> Option<usize> {
    let mut longest = None;
    let mut found = |host: usize| {
        let path =
            (text.at(host) == '/').then(|| run_without(text, host + 1, "\"<>|()", ".!?(){},-", 2)).flatten();
        longest = longest.max(Some(path.unwrap_or(host)));
    };
    www(text, start, &mut found);
    domain(text, start, &mut found);
    longest
}

/// Calls `found` with each end of `www.`, parts with a period after each, and two to four letters.
fn www(text: &Text, start: usize, found: &mut impl FnMut(usize)) {
    let Some(first) = text.literal(start, "www.") else { return };
    let Some(end) = run_without(text, first, "\"<>|!?(){},", "", 1) else { return };
    for dot in (first..end).filter(|&position| text.at(position) == '.') {
        if dot == first || text.at(dot - 1) == '.' {
            return;
        }
        let letters = text.run(dot + 1, |c| c.is_ascii_alphabetic()).min(dot + 5);
        (dot + 3..=letters).for_each(&mut *found);
    }
}

/// Calls `found` with each end of `name.com` and its like. The peer's class of characters spans from `,` to
/// `_`: no capitals and no digits.
fn domain(text: &Text, start: usize, found: &mut impl FnMut(usize)) {
    let is_part = |c: char| {
        !matches!(c, ' ' | '\t' | '\n' | '\u{c}' | '\r' | END | ','..='_')
            && !matches!(c, '"' | '`' | '\'' | '|' | '!' | '(' | ')' | '{' | '}' | '$')
    };
    let mut part = start;
    loop {
        let end = text.run(part, is_part);
        if end == part || text.at(end) != '.' {
            return;
        }
        if let Some(end) = text.longest_of(end + 1, &["com", "net", "org", "edu"]) {
            found(end);
        }
        part = end + 1;
    }
}

/// The end of an address of mail, in angle brackets or without.
fn mail(text: &Text, start: usize) -> Option<usize> {
    let start = text.literal(start, "&lt;").unwrap_or(start + usize::from(text.at(start) == '<'));
    if !text.at(start).is_ascii_alphanumeric() {
        return None;
    }
    let not = "\"<>|(){}\u{a0}";
    let end = run_without(text, start, not, "", 1)?;
    let mut found = None;
    for at in (start + 1..end).filter(|&at| text.at(at) == '@') {
        // Parts with single periods between.
        let mut host = at;
        while host < end && (host == at || text.at(host) == '.') {
            let part = text.run(host + 1, |c| c != '.').min(end);
            if part == host + 1 {
                break;
            }
            host = part;
        }
        found = if host > at { Some(host) } else { found };
    }
    let end = found?;
    Some(text.literal(end, "&gt;").unwrap_or(end + usize::from(text.at(end) == '>')))
}

/// The extensions that make `99.jpg` one token.
const EXTENSIONS: [&str; 35] = [
    "bat", "bmp", "c", "cgi", "class", "cpp", "dll", "doc", "docx", "exe", "gif", "gz", "h", "htm", "html",
    "jar", "java", "jpeg", "jpg", "mov", "mp3", "pdf", "php", "pl", "png", "ppt", "ps", "py", "sql", "tar",
    "txt", "wav", "x", "xml", "zip",
];

/// Names of files: letters and digits, parts with a period between, and an extension.
pub fn files(text: &Text, start: usize, best: &mut Best) {
    let part_end = |start: usize| {
        let next = |&end: &usize| letter_end(text, end).or(is_digit(text.at(end)).then_some(end + 1));
        std::iter::successors(Some(start), next).last().unwrap_or(start)
    };
    let mut end = part_end(start);
    while end > start && text.at(end) == '.' {
        let part = end + 1;
        end = part_end(part);
        let next = text.at(end);
        let is_name = is_blank(next) || matches!(next, '.' | '?' | '!' | ',');
        if is_name && text.longest_of(part, &EXTENSIONS).is_some_and(|extension| extension == end) {
            best.offer(end + 1, end, Becomes::Same);
        }
        if end == part {
            break;
        }
    }
}
