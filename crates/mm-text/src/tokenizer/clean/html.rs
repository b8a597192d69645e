//! Character references of HTML, resolved as by Python's `html.unescape` and by ftfy.

use super::charmaps::of_c1;
use htmlize::ENTITIES;
use std::borrow::Cow;

/// The longest name that Python reads.
const LONGEST_NAME: usize = 32;
/// The longest name that ftfy reads.
const LONGEST_FTFY_NAME: usize = 24;

/// `text` with its character references resolved as by Python's `html.unescape`: names and numbers with or
/// without a semicolon, and of an unknown name without one its longest known prefix.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replaced(text, |rest| {
        if let Some(number) = rest.strip_prefix('#') {
            let (length, code) = numeric(number)?;
            return Some((1 + length, code));
        }
        let ends = |char: char| matches!(char, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
        let name = rest.char_indices().take(LONGEST_NAME).take_while(|&(_, char)| !ends(char)).last();
        let length = name.map(|(place, char)| place + char.len_utf8())?;
        let whole = &rest[..length + usize::from(rest[length..].starts_with(';'))];
        if let Some(found) = named(whole) {
            return Some((whole.len(), found.to_owned()));
        }
        // A single letter is not a name.
        let shorter = whole.char_indices().map(|(place, _)| place).skip(2).collect::<Vec<_>>();
        let known = |&end: &usize| named(&whole[..end]).map(|found| format!("{found}{}", &whole[end..]));
        let resolved = shorter.iter().rev().find_map(known).unwrap_or_else(|| format!("&{whole}"));
        Some((whole.len(), resolved))
    })
}

/// `text` with those character references resolved that end in a semicolon, and names in capitals that are
/// known in lower case.
pub(super) fn unescape_whole(text: &str) -> Cow<'_, str> {
    replaced(text, |rest| {
        let hash = usize::from(rest.starts_with('#'));
        let length = rest[hash..].bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_reference =
            (1..=LONGEST_FTFY_NAME).contains(&length) && rest[hash + length..].starts_with(';');
        let whole = is_reference.then(|| &rest[..hash + length + 1])?;
        let resolved = match hash {
            // If only a part of it is resolved, its semicolon remains.
            1 => Some(unescape(&format!("&{whole}")).into_owned()).filter(|resolved| !resolved.contains(';')),
            _ => named(whole).map(str::to_owned).or_else(|| capitals(whole)),
        };
        Some((whole.len(), resolved.unwrap_or_else(|| format!("&{whole}"))))
    })
}

/// The characters of the name in capitals `whole`, its semicolon included: the capitals of those of the name
/// in lower case.
fn capitals(whole: &str) -> Option<String> {
    let small = whole.to_ascii_lowercase();
    let reference = format!("&{whole}");
    let is_capitals = !whole.bytes().any(|byte| byte.is_ascii_lowercase());
    (is_capitals && unescape(&reference) == reference).then(|| named(&small)).flatten().map(str::to_uppercase)
}

/// `text` with references replaced by `resolve`, which maps the text after an `&` to the number of bytes of
/// the reference and its replacement.
fn replaced(text: &str, resolve: impl Fn(&str) -> Option<(usize, String)>) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(place) = rest.find('&') {
        out.push_str(&rest[..place]);
        rest = &rest[place + 1..];
        match resolve(rest) {
            Some((length, resolved)) => {
                out.push_str(&resolved);
                rest = &rest[length..];
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The characters of the reference `&name`.
fn named(name: &str) -> Option<&'static str> {
    let resolved = ENTITIES.get(format!("&{name}").as_bytes())?;
    std::str::from_utf8(resolved).ok()
}

/// The character of a number with an optional semicolon, and their number of bytes; empty for a character
/// that texts do not contain.
fn numeric(text: &str) -> Option<(usize, String)> {
    let hex = text.strip_prefix(['x', 'X']);
    let (digits, radix) = hex.map_or((text, 10), |digits| (digits, 16));
    let length = digits.bytes().take_while(|&byte| char::from(byte).is_digit(radix)).count();
    if length == 0 {
        return None;
    }
    let end = usize::from(digits[length..].starts_with(';'));
    // An overflow is larger than any character.
    let code = u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX);
    Some((text.len() - digits.len() + length + end, character(code)))
}

fn character(code: u32) -> String {
    let is_noncharacter = matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe;
    match char::from_u32(code) {
        None | Some('\0') => "\u{fffd}".to_owned(),
        Some(char @ '\u{80}'..='\u{9f}') => of_c1(char).to_string(),
        Some('\u{1}'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}') => String::new(),
        Some(_) if is_noncharacter => String::new(),
        Some(char) => char.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_python_does() {
        for (text, expected) in [
            ("&amp; &lt;b&gt; &eacute;", "& <b> é"),
            ("&ampx &notit; &notin; &no", "&x ¬it; ∉ &no"),
            ("&#39;&#x27;&#X27 &#8217;s", "''' ’s"),
            ("&#0;&#xD800;&#x110000;&#99999999999;", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("&#1;&#xFFFE;|&#150;&#x81;", "|–\u{81}"),
            ("&; &# &#; &#x; &unknown; & &&amp", "&; &# &#; &#x; &unknown; & &&"),
            ("&amp;amp;", "&amp;"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn whole_references_are_resolved_as_ftfy_does() {
        for (text, expected) in [
            ("&amp; &amp x&not y", "& &amp x&not y"),
            ("P&EACUTE;REZ &NTILDE; &nTILDE; &SZLIG;", "PÉREZ Ñ &nTILDE; SS"),
            ("&#x2019;&#39;&#12x;", "’'&#12x;"),
            ("&checkmark;&hellip;&unknown;", "✓…&unknown;"),
        ] {
            assert_eq!(unescape_whole(text), expected, "{text}");
        }
    }
}
