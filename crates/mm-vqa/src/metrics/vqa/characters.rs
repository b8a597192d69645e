//! Character classes of Python's `str` methods and regular expressions.

/// Whether `str.split` and `str.strip` take the character for white space: Unicode's, and the four separators
/// U+001C to U+001F.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Whether `\d` matches: a decimal digit of any script.
pub(super) fn is_digit(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_digit();
    }
    let code = u32::from(c);
    let zeros_before = ZEROS.partition_point(|&zero| zero <= code);
    zeros_before.checked_sub(1).and_then(|at| ZEROS.get(at)).is_some_and(|zero| code - zero < 10)
}

/// The digit zero of each script outside ASCII, sorted; the other nine follow it. Unicode 14, as of Python
/// 3.11.
#[rustfmt::skip]
const ZEROS: [u32; 65] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50,
    0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0,
    0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50,
    0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140,
    0x1e2f0, 0x1e950, 0x1fbf0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_every_script_are_digits_and_other_numbers_are_none() {
        assert!(ZEROS.is_sorted());
        assert_eq!(('\0'..=char::MAX).filter(|&c| is_digit(c)).count(), 660);
        assert!(['0', '9', '٠', '٩', '９', '𝟿'].into_iter().all(is_digit));
        assert!(!['²', '½', 'Ⅷ', '①', 'a', '/', ':'].into_iter().any(is_digit));
        assert_eq!(('\0'..=char::MAX).filter(|&c| is_space(c)).count(), 29);
    }
}
