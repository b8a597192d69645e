//! The scanner: the longest of all matches at a position, and what its token becomes.

use super::abbreviations::keeps_period;
use super::characters::{END, SOFT_HYPHEN, is_blank, is_space, unaccented};
use super::{DROPPED, is_python_space, number, quote, symbol, web, word};

/// What becomes of the characters of a match.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// The token as it is.
    Same,
    /// The token without soft hyphens.
    Word,
    /// The token with curly and other quotation marks made straight.
    Quoted,
    /// The token with its spaces made U+00A0.
    Spaced,
    /// As `Spaced`, with the parentheses spelled out.
    Joined,
    /// The token with `&amp;` made `&`.
    Ampersand,
    /// The token with a period, which is read again.
    Dotted,
    /// Another token.
    Fixed(&'static str),
    /// No token.
    Nothing,
}

/// The best match so far.
#[derive(Clone, Copy)]
pub struct Best {
    /// One past the last character that the rule looked at.
    seen: usize,
    /// One past the last character of the token.
    end: usize,
    becomes: Becomes,
}

impl Best {
    /// Takes a match that looked at the characters before `seen` and keeps those before `end`, if it is
    /// longer than those offered before it.
    pub fn offer(&mut self, seen: usize, end: usize, becomes: Becomes) {
        if seen > self.seen {
            *self = Self { seen, end, becomes };
        }
    }

    /// Takes a match without lookahead.
    pub fn offer_all(&mut self, end: usize, becomes: Becomes) {
        self.offer(end, end, becomes);
    }
}

/// The characters to scan, with tests of what stands at a position.
pub struct Text {
    characters: Vec<char>,
    /// Whether the text has a character that every address of a web page or mail contains.
    pub has_address: bool,
}

impl Text {
    /// The character at a position; [`END`] past the last one.
    pub fn at(&self, position: usize) -> char {
        self.characters.get(position).copied().unwrap_or(END)
    }

    /// One past the last of the characters from `start` that are in the class.
    pub fn run(&self, start: usize, class: impl Fn(char) -> bool) -> usize {
        let rest = self.characters.get(start..).unwrap_or_default();
        start + rest.iter().take_while(|&&c| class(c)).count()
    }

    /// The position after `word`, which is in lower-case ASCII, if the text has it at `start` in any case.
    pub fn literal(&self, start: usize, word: &str) -> Option<usize> {
        let found = word.bytes().enumerate().all(|(index, byte)| {
            let c = unaccented(self.at(start + index));
            c.is_ascii() && (c as u8).to_ascii_lowercase() == byte
        });
        found.then_some(start + word.len())
    }

    /// The longest of `words` at `start`, as [`Text::literal`].
    pub fn longest_of(&self, start: usize, words: &[&str]) -> Option<usize> {
        words.iter().filter_map(|word| self.literal(start, word)).max()
    }

    /// The text between two positions.
    pub fn slice(&self, start: usize, end: usize) -> &[char] {
        &self.characters[start..end.min(self.characters.len())]
    }
}

/// A scanner, with memory that is used again for every line.
pub struct Scanner {
    text: Text,
    /// The token that is being written.
    token: String,
    /// Whether the last token is not one of those that are dropped.
    is_last_kept: bool,
}

impl Scanner {
    /// A scanner without text.
    pub fn new() -> Self {
        Self {
            text: Text { characters: Vec::new(), has_address: false },
            token: String::new(),
            is_last_kept: false,
        }
    }

    /// The tokens of `line`, joined by spaces. `following` is read as the text after it.
    pub fn scan(&mut self, line: &str, following: &str) -> String {
        let clean = |c: char| match c {
            '\n' => ' ',
            END => '\u{fffe}',
            c => c,
        };
        let characters = &mut self.text.characters;
        characters.clear();
        characters.extend(line.chars().map(clean));
        let end = characters.len();
        self.text.has_address = line.bytes().any(|byte| byte == b'@') || web::may_have_address(line);
        characters.extend(following.chars());

        let mut tokens = String::with_capacity(line.len() + 8);
        self.is_last_kept = false;
        let mut position = 0;
        while position < end {
            position = self.next(position, &mut tokens);
        }
        // The peer strips each line at its end before it drops tokens.
        if self.is_last_kept {
            tokens.truncate(tokens.trim_end_matches(is_python_space).len());
        }
        tokens
    }

    /// Appends the token at `position` and returns the position after it.
    fn next(&mut self, position: usize, tokens: &mut String) -> usize {
        let text = &self.text;
        let first = text.at(position);
        let spaces = text.run(position, is_space).max(position + usize::from(is_blank(first)));
        // The peer takes spaces outside ASCII for characters of an address.
        if spaces > position && (first.is_ascii() || !text.has_address) {
            return spaces;
        }
        self.token.clear();
        if let Some(end) = plain_word(text, position) {
            self.token.extend(text.slice(position, end).iter().map(char::to_ascii_lowercase));
            self.is_last_kept = push(tokens, &self.token);
            return end;
        }
        let rest = spaces.max(position + 1);
        let mut best = Best { seen: spaces, end: rest, becomes: Becomes::Nothing };
        word::split_words(text, position, &mut best);
        web::tags(text, position, &mut best);
        symbol::entities(text, position, &mut best);
        word::words(text, position, &mut best);
        web::addresses(text, position, &mut best);
        quote::contractions_before_text(text, position, &mut best);
        number::numbers(text, position, &mut best);
        word::special_words(text, position, &mut best);
        number::slashed(text, position, &mut best);
        symbol::currency(text, position, &mut best);
        word::abbreviations(text, position, &mut best);
        web::files(text, position, &mut best);
        number::telephone(text, position, &mut best);
        symbol::symbols(text, position, &mut best);
        word::compounds(text, position, &mut best);
        quote::quotes(text, position, &mut best);
        symbol::other_symbols(text, position, &mut best);
        write_token(&mut self.token, text.slice(position, best.end), best.becomes);
        if best.becomes != Becomes::Nothing {
            self.is_last_kept = push(tokens, &self.token);
        }
        best.end
    }
}

/// The end of a word of ASCII letters that no rule but that of words can match, which most words are: a space
/// or a line's end follows, with or without a comma or period, and it is not one that is split.
fn plain_word(text: &Text, start: usize) -> Option<usize> {
    let end = text.run(start, |c| c.is_ascii_alphabetic());
    let is_end = |c| matches!(c, ' ' | '\n' | END);
    let letters = end - start;
    let is_plain = match text.at(end) {
        ',' => letters > 0 && is_end(text.at(end + 1)),
        '.' => letters > 1 && is_end(text.at(end + 1)) && !may_keep_period(text, start, end),
        next => letters > 0 && is_end(next),
    };
    (is_plain && !word::is_split(text, start, end)).then_some(end)
}

fn may_keep_period(text: &Text, start: usize, end: usize) -> bool {
    if end - start > 7 {
        return false;
    }
    let word: String = text.slice(start, end).iter().collect();
    // Before a number more words keep it; the rules say which.
    keeps_period(&word) || text.at(end + 2).is_numeric()
}

fn write_token(token: &mut String, matched: &[char], becomes: Becomes) {
    match becomes {
        Becomes::Same | Becomes::Word => {
            token.extend(matched.iter().filter(|&&c| becomes == Becomes::Same || c != SOFT_HYPHEN));
            if token.is_empty() {
                token.push('-');
            }
        }
        Becomes::Quoted => quote::write_straight(token, matched),
        Becomes::Spaced | Becomes::Joined => {
            for &c in matched {
                match c {
                    ' ' => token.push('\u{a0}'),
                    '(' if becomes == Becomes::Joined => token.push_str("-lrb-"),
                    ')' if becomes == Becomes::Joined => token.push_str("-rrb-"),
                    c => token.push(c),
                }
            }
        }
        Becomes::Ampersand => {
            let text: String = matched.iter().collect();
            token.push_str(&text.to_lowercase().replace("&amp;", "&"));
        }
        Becomes::Dotted => {
            token.extend(matched);
            token.push('.');
        }
        Becomes::Fixed(fixed) => token.push_str(fixed),
        Becomes::Nothing => {}
    }
}

/// Appends a token in lower case, unless it is dropped. Returns whether it is kept.
fn push(tokens: &mut String, token: &str) -> bool {
    if DROPPED.contains(&token) {
        return false;
    }
    if !tokens.is_empty() {
        tokens.push(' ');
    }
    if token.bytes().any(|byte| byte.is_ascii_uppercase() || byte >= 0x80) {
        tokens.push_str(&token.to_lowercase());
    } else {
        tokens.push_str(token);
    }
    true
}
