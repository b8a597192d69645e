//! The repair of UTF-8 that was decoded with another encoding: ftfy 6.3's `fix_encoding`.

use super::badness::is_bad;
use super::charmaps::{CHARMAPS, CLUES, Charmap, of_c1};
use regex::bytes::{Captures, Regex};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// `text` decoded with the right encodings, as far as they can be detected.
pub(super) fn fix_encoding(text: String) -> String {
    let mut text = text;
    loop {
        match one_step(&text) {
            Some(fixed) if fixed != text => text = fixed,
            _ => return text,
        }
    }
}

/// One wrong decoding undone; none if there is nothing to do.
fn one_step(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    for charmap in CHARMAPS.iter() {
        if let Some(fixed) = charmap.encode(text).and_then(|bytes| read_as_utf8(bytes, charmap)) {
            return Some(fixed);
        }
    }
    let parts = fix_parts(text);
    if parts.as_deref().is_some_and(|fixed| fixed != text) {
        return parts;
    }
    // The rest are controls of Latin-1, for which Windows-1252 has characters.
    let is_c1 = |char: char| matches!(char, '\u{80}'..='\u{9f}');
    text.contains(is_c1)
        .then(|| text.chars().map(|char| if is_c1(char) { of_c1(char) } else { char }).collect())
}

/// `bytes`, which were decoded with `charmap`, as UTF-8.
fn read_as_utf8(mut bytes: Vec<u8>, charmap: &Charmap) -> Option<String> {
    if charmap.restores_spaces && ALTERED.is_match(&bytes) {
        bytes = restore_spaces(&bytes);
    }
    if charmap.is_windows {
        bytes = LOSSY.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
    }
    String::from_utf8(without_variants(bytes)).ok()
}

/// Characters of UTF-8 with a space instead of a no-break space, whose repair gives a likely character.
static ALTERED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&[
        r"[\xc2\xc3\xc5\xce\xd0\xd9] ",
        r"[\xe2\xe3] [\x80-\x84\x86-\x9f\xa1-\xbf]",
        r"[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf] ",
        r"\xf0 [\x80-\xbf][\x80-\xbf]",
        r"\xf0[\x80-\xbf] [\x80-\xbf]",
        r"\xf0[\x80-\xbf][\x80-\xbf] ",
    ])
});

/// Characters of UTF-8, also surrogates, with bytes that are lost or a question mark.
static LOSSY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&[
        r"[\xc2-\xdf]\x1a",
        r"[\xc2-\xc3][?]",
        r"\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
        r"\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
        r"[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
        r"[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
        r"[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
        r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
        r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
        r"\x1a",
    ])
});

fn pattern(alternatives: &[&str]) -> Regex {
    Regex::new(&format!("(?-u){}", alternatives.join("|"))).expect("the pattern is valid")
}

/// The words that form one word with a preceding "à" in Portuguese.
const JOINED_TO_A_GRAVE: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];

/// `bytes` with no-break spaces restored where a space replaced one; after the word "à" the space stays.
fn restore_spaces(bytes: &[u8]) -> Vec<u8> {
    let mut words = Vec::with_capacity(bytes.len());
    for (place, &byte) in bytes.iter().enumerate() {
        let is_word = bytes[..place].ends_with(b"\xc3")
            && byte == b' '
            && !JOINED_TO_A_GRAVE.iter().any(|joined| bytes[place + 1..].starts_with(joined));
        words.extend(is_word.then_some(0xa0).into_iter().chain([byte]));
    }
    let restored = |found: &Captures| -> Vec<u8> {
        found[0].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect()
    };
    ALTERED.replace_all(&words, restored).into_owned()
}

/// `bytes` with UTF-8 instead of its variants: a null of two bytes, and surrogates of three bytes each.
fn without_variants(bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.iter().any(|byte| [0xc0, 0xed].contains(byte)) {
        return bytes;
    }
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes.as_slice());
    while let Some((&first, behind)) = rest.split_first() {
        rest = match rest {
            [0xc0, 0x80, behind @ ..] => {
                out.push(0);
                behind
            }
            &[0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                let bits = |byte: u8, kept: u8| u32::from(byte & kept);
                let code = 0x10000
                    + (bits(a, 0x0f) << 16 | bits(b, 0x3f) << 10 | bits(c, 0x0f) << 6 | bits(d, 0x3f));
                out.extend(char::from_u32(code).map(|char| char.to_string()).unwrap_or_default().bytes());
                &rest[6..]
            }
            _ => {
                out.push(first);
                behind
            }
        };
    }
    out
}

/// `text` with the parts that look like UTF-8 repaired one by one; none if there is no such part.
fn fix_parts(text: &str) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut place, mut is_found) = (String::with_capacity(text.len()), 0, false);
    while place < chars.len() {
        let end = end_of_part(&chars, place);
        if end == place {
            out.push(chars[place]);
            place += 1;
            continue;
        }
        is_found = true;
        let part: String = chars[place..end].iter().collect();
        let is_shorter = end - place < chars.len();
        out.push_str(&if is_shorter && is_bad(&part) { fix_encoding(part) } else { part });
        place = end;
    }
    is_found.then_some(out)
}

/// The end of the run of characters that look like UTF-8 and starts at `place`; `place` if there is none.
fn end_of_part(chars: &[char], place: usize) -> usize {
    let clues = &*CLUES;
    if place > 0 && clues.strict_continuation.contains(&chars[place - 1]) {
        return place;
    }
    let mut end = place;
    loop {
        let continues = |count: usize| {
            let behind = chars.get(end + 1..end + 1 + count);
            behind.is_some_and(|behind| behind.iter().all(|char| clues.continuation.contains(char)))
        };
        let firsts = [(&clues.first_of_2, 1), (&clues.first_of_3, 2), (&clues.first_of_4, 3)];
        let is_first = |first: &BTreeSet<char>| chars.get(end).is_some_and(|char| first.contains(char));
        match firsts.into_iter().find(|&(first, count)| is_first(first) && continues(count)) {
            Some((_, count)) => end += 1 + count,
            None => return end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_again_in_their_encoding() {
        for (broken, whole) in [
            ("sÃ³", "só"),
            ("âœ” No problems", "✔ No problems"),
            ("doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t", "doesn’t"),
            ("voilÃ le travail", "voilà le travail"),
            ("â€œ like this â€\u{fffd}", "“ like this \u{fffd}"),
            ("cafÃ© “beside” 日本", "café “beside” 日本"),
            ("ÐšÐ¾ÑˆÐºÐ°", "Кошка"),
            ("a \u{85} b", "a … b"),
            ("só “whole”", "só “whole”"),
        ] {
            assert_eq!(fix_encoding(broken.to_owned()), whole, "{broken:?}");
        }
    }

    #[test]
    fn surrogates_and_long_nulls_are_characters() {
        assert_eq!(without_variants(b"\xed\xa0\xbd\xed\xb2\xa9 \xc0\x80".to_vec()), "💩 \0".as_bytes());
        assert!(String::from_utf8(without_variants(b"\xed\xa0\xbd".to_vec())).is_err());
    }
}
