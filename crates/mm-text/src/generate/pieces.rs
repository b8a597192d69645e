//! The text of tokens that come one by one.

use crate::{Result, Tokenizer};

/// The text of tokens that come one by one, in pieces that no later token changes. The pieces and the rest
/// together are the decoded text.
#[derive(Debug)]
pub struct TextPieces<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// The bytes of the pieces so far.
    given: usize,
}

impl<'a> TextPieces<'a> {
    /// The pieces of a text that begins with the tokens `ids`, such as a prompt that is part of it.
    pub fn new(tokenizer: &'a Tokenizer, ids: Vec<u32>) -> Self {
        Self { tokenizer, ids, given: 0 }
    }

    /// The text that is final with the next token, after that of the pieces before; it may be empty.
    ///
    /// # Errors
    /// The tokenizer cannot decode the tokens.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.ids.push(token);
        let text = self.tokenizer.decode(&self.ids)?;
        let end = final_length(&text).max(self.given);
        let piece = text.get(self.given..end).unwrap_or_default().to_owned();
        self.given += piece.len();
        Ok(piece)
    }

    /// What is left of `text`, the whole decoded text, after the pieces.
    pub fn rest<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.given..).unwrap_or_default()
    }
}

/// The bytes of `text` that stay when tokens are added. Tokens of a character's first bytes decode to
/// replacement characters at the end. A word in ASCII may go on, and the space before it may go: tokenizers
/// join punctuation and contractions to the word before.
fn final_length(text: &str) -> usize {
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let last = text.char_indices().rfind(|(_, char)| char.is_whitespace() || !char.is_ascii());
    match last {
        None => 0,
        Some((place, char)) if char.is_whitespace() => place,
        Some((place, char)) => place + char.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train_bpe;

    #[test]
    fn what_may_still_change_is_held_back() {
        for (text, expected) in [
            ("", ""),
            ("a", ""),
            ("a red", "a"),
            ("a red star", "a red"),
            ("caf\u{e9}", "caf\u{e9}"),
            ("caf\u{e9}s", "caf\u{e9}"),
            ("\u{732b}\u{5728}", "\u{732b}\u{5728}"),
            ("a \u{fffd}", "a"),
            ("a\u{732b}\u{fffd}\u{fffd}", "a\u{732b}"),
            ("\u{fffd}b c", "\u{fffd}b"),
        ] {
            assert_eq!(&text[..final_length(text)], expected, "{text:?}");
        }
    }

    #[test]
    fn the_pieces_and_the_rest_are_the_text() {
        let text = "a red star, which is above two dogs";
        let tokenizer = train_bpe([text.to_owned()].into_iter(), 600, 32).unwrap();
        let mut pieces = TextPieces::new(&tokenizer, Vec::new());
        let ids = tokenizer.encode_words(text).unwrap();
        let mut found: String = ids.iter().map(|&id| pieces.push(id).unwrap()).collect();
        assert!(!found.is_empty() && found.len() < text.len());
        found.push_str(pieces.rest(text));
        assert_eq!(found, text);
    }
}
