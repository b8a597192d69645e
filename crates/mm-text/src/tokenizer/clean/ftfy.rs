//! ftfy 6.3 (Speer 2019) with its default settings.

use super::charmaps::of_c1;
use super::html::unescape_whole;
use super::mojibake::fix_encoding;
use regex::Regex;
use std::sync::LazyLock;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The largest number of characters that are repaired at once.
const LONGEST_SEGMENT: usize = 1_000_000;

/// `text` with broken encodings repaired, character references resolved if nothing in it or before it is a
/// tag, letters of other widths, ligatures and curly quotation marks replaced, line breaks as `\n`, without
/// terminal escapes and controls, composed (NFC). Each line is repaired on its own.
pub(super) fn fix_text(text: &str) -> String {
    let (mut out, mut is_html) = (String::with_capacity(text.len()), false);
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST_SEGMENT).map_or(rest.len(), |(place, _)| place);
            let (segment, behind) = rest.split_at(end);
            is_html |= segment.contains('<');
            out.push_str(&fix_segment(segment, is_html));
            rest = behind;
        }
    }
    out
}

fn fix_segment(segment: &str, is_html: bool) -> String {
    let mut text = segment.to_owned();
    loop {
        let resolved = if is_html { text.clone() } else { unescape_whole(&text).into_owned() };
        let mut fixed = plain(&fix_encoding(resolved));
        if fixed.contains('\x1b') {
            fixed = TERMINAL_ESCAPE.replace_all(&fixed, "").into_owned();
        }
        fixed.retain(|char| !is_control(char));
        if !is_nfc(&fixed) {
            fixed = fixed.nfc().collect();
        }
        if fixed == text {
            return fixed;
        }
        text = fixed;
    }
}

static TERMINAL_ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("the pattern is valid"));

/// `text` with plain characters instead of those of other widths, ligatures, curly quotation marks, line
/// breaks and controls of Latin-1.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{80}'..='\u{9f}' => push_plain(&mut out, of_c1(char)),
            '\r' if chars.peek() == Some(&'\n') => {}
            _ => push_plain(&mut out, char),
        }
    }
    out
}

fn push_plain(out: &mut String, char: char) {
    match (char, ligature(char)) {
        ('\0'..='\x0c' | '\x0e'..='\u{ff}', _) => out.push(char),
        (_, Some(letters)) => out.push_str(letters),
        ('\u{3000}', _) => out.push(' '),
        ('\u{ff01}'..='\u{ffef}', _) => out.extend(std::iter::once(char).nfkc()),
        ('\u{2bc}' | '\u{2018}'..='\u{201b}', _) => out.push('\''),
        ('\u{201c}'..='\u{201f}', _) => out.push('"'),
        ('\r' | '\u{2028}' | '\u{2029}', _) => out.push('\n'),
        _ => out.push(char),
    }
}

/// The letters of a ligature or of a character that older encodings have for two letters.
fn ligature(char: char) -> Option<&'static str> {
    Some(match char {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Whether ftfy removes `char`: controls of ASCII except white space, deprecated and invisible ones, byte
/// order marks.
fn is_control(char: char) -> bool {
    let is_ascii_control = matches!(char, '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f');
    is_ascii_control || matches!(char, '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

#[cfg(test)]
mod tests {
    use super::fix_text;

    #[test]
    fn each_fault_is_mended() {
        for (broken, expected) in [
            ("“here’s a test”", "\"here's a test\""),
            ("ﬂuﬃeﬆ ŉ Ǆ", "fluffiest 'n DŽ"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ Ｕﾀｰﾝ ｶﾞ", "LOUD NOISES Uターン ガ"),
            ("a\r\nb\rc\u{2028}d\u{2029}e", "a\nb\nc\nd\ne"),
            ("\x1b[36;44mblue\x1b[0m\u{feff}\0\x7f", "blue"),
            ("cafe\u{301}", "café"),
            ("Broken text&hellip; it&#x2019;s &amp;amp;", "Broken text… it's &"),
            ("<b>&amp;</b>\n&amp;", "<b>&amp;</b>\n&amp;"),
            ("&amp;\n<b>", "&\n<b>"),
            ("", ""),
        ] {
            assert_eq!(fix_text(broken), expected, "{broken:?}");
        }
    }
}
