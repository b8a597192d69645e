//! Classes of characters.

use super::unicode;

/// Stands for "no character": the end of the file. U+FFFF is no character, and the scanner replaces one that
/// is in a caption.
pub const END: char = '\u{ffff}';

/// Marks where a word may be broken, and is no part of a token.
pub const SOFT_HYPHEN: char = '\u{ad}';

/// Characters of words: letters, and the marks and signs that are read as parts of words.
pub fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && (c == SOFT_HYPHEN || unicode::is_word(c)))
}

/// Letters without marks.
pub fn is_plain_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && unicode::is_letter(c))
}

/// Decimal digits of any script.
pub fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && unicode::is_digit(c))
}

/// Characters of compounds and names of files.
pub fn is_alphanumeric(c: char) -> bool {
    is_plain_letter(c) || is_digit(c)
}

/// The ASCII letter that a character is when case is ignored; four letters outside ASCII have one.
pub fn unaccented(c: char) -> char {
    match c {
        '\u{130}' | '\u{131}' => 'i',
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c,
    }
}

/// White space within a line.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{3000}')
}

/// Line ends.
fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// White space, with line ends.
pub fn is_blank(c: char) -> bool {
    is_space(c) || is_newline(c)
}

/// Punctuation within a sentence, before which a word keeps its period.
pub fn is_inner_punctuation(c: char) -> bool {
    matches!(c, ',' | ';' | ':' | '\u{3001}')
}

/// Hyphens that join the parts of a compound.
pub fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '_' | '\u{58a}' | '\u{2010}' | '\u{2011}')
}
