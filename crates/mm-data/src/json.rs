//! JSON as Python's `json` module writes it, a superset of the standard.

use serde::de::DeserializeOwned;

/// Parses JSON. `NaN`, `Infinity`, `-Infinity` and numbers out of the range of `f64` become null; a lone
/// surrogate becomes U+FFFD.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| match standard(text) {
        Some(text) => serde_json::from_str(&text),
        None => Err(error),
    })
}

/// The text with Python's extensions replaced by standard JSON; `None` where there are none.
pub(crate) fn standard(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut replace = |from: usize, to: usize, by: &str| {
        out.push_str(&text[copied..from]);
        out.push_str(by);
        copied = to;
    };
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string(bytes, at + 1, |from| replace(from, from + 6, "\\ufffd")),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                let end = at + bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                let token = &text[at..end];
                // Rust parses "inf" as a number, too.
                let is_infinite = || {
                    token.ends_with(|last: char| last.is_ascii_digit())
                        && token.parse().is_ok_and(f64::is_infinite)
                };
                if ["NaN", "Infinity", "-Infinity"].contains(&token) || is_infinite() {
                    replace(at, end, "null");
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    (copied > 0).then(|| out + &text[copied..])
}

/// The end of a string whose content begins at `at`. Calls `lone` with the position of each lone surrogate's
/// escape.
fn string(bytes: &[u8], mut at: usize, mut lone: impl FnMut(usize)) -> usize {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    while at < bytes.len() {
        match (bytes[at], unit(at)) {
            (b'"', _) => return at + 1,
            (_, Some(0xd800..0xdc00)) if matches!(unit(at + 6), Some(0xdc00..0xe000)) => at += 12,
            (_, Some(0xd800..0xe000)) => {
                lone(at);
                at += 6;
            }
            (b'\\', _) => at += 2,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn json_of_python_is_read() {
        let text =
            r#"{"nan": NaN, "list": [Infinity, -Infinity,1e999,-2.5e+3], "NaN": "NaN \" Infinity", "é": -1}"#;
        let expected =
            json!({"nan": null, "list": [null, null, null, -2500.0], "NaN": "NaN \" Infinity", "é": -1});
        assert_eq!(parse::<Value>(text).unwrap(), expected);
        let text = r#"["\ud83d\udc08", "\ud83d", "\udc08x", "\\ud83d", "\ud83d\u00e9"]"#;
        let expected = json!(["🐈", "\u{fffd}", "\u{fffd}x", "\\ud83d", "\u{fffd}é"]);
        assert_eq!(parse::<Value>(text).unwrap(), expected);
    }

    #[test]
    fn invalid_json_is_an_error() {
        assert_eq!(standard(r#"{"a": 1, "b": "\ud83d\udc08"}"#), None);
        for wrong in
            ["", "{", "[nan]", "[NaNs]", "[-]", "[Inf]", "[\"\\ud8", "\"\\", "[1,]", "NaN NaN", "['a']"]
        {
            assert!(parse::<Value>(wrong).is_err(), "{wrong}");
        }
    }
}
