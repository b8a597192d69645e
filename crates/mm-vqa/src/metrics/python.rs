//! What Python's strings do, on which published metrics rest.

/// Whether Python's `str.isspace` holds for the character.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `text.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `text.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `float(text)`, for ASCII digits: white space around the number and single underscores between digits are
/// allowed.
pub(super) fn float(text: &str) -> Option<f64> {
    let text = strip(text);
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let misplaced =
        |(at, &byte): (usize, &u8)| byte == b'_' && !(is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)));
    if bytes.iter().enumerate().any(misplaced) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_python_reads_them() {
        assert_eq!(strip("\u{1c}\u{a0} a b\u{3000}\n"), "a b");
        assert_eq!(split(" a\u{1f}\u{1f}b\t").collect::<Vec<_>>(), ["a", "b"]);
        for (text, expected) in [
            (" 1_000 ", Some(1000.0)),
            ("+.5", Some(0.5)),
            ("1.", Some(1.0)),
            ("1e3", Some(1000.0)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1_", None),
            ("_1", None),
            ("1__0", None),
            ("1,000", None),
            ("", None),
            ("0x10", None),
        ] {
            assert_eq!(float(text), expected, "{text}");
        }
        assert!(float("nan").is_some_and(f64::is_nan));
    }
}
