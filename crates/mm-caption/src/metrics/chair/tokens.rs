//! The tokens of NLTK's `word_tokenize`, as far as they matter for finding nouns in a caption.

/// Characters that are always tokens of their own.
const SYMBOLS: &str = "\"“”„«»‘’`–—;@#$%&?!*[](){}<>";

/// Characters after the period of a sentence.
const CLOSING: &str = "])}>\"'»”’";

/// The endings that are split off a word: those with an apostrophe, and `n't`.
const ENDINGS: [&str; 7] = ["'s", "'m", "'d", "'ll", "'re", "'ve", "n't"];

/// Splits a lower-case caption. Symbols are tokens, so that the words beside them are no neighbors.
pub(super) fn tokens(caption: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for chunk in caption.split_whitespace() {
        let mut start = 0;
        let chars: Vec<(usize, char)> = chunk.char_indices().collect();
        for (place, &(at, c)) in chars.iter().enumerate() {
            let next = chars.get(place + 1).map(|&(_, next)| next);
            let before = place.checked_sub(1).map(|place| chars[place].1);
            let is_symbol = match c {
                ',' | ':' => !next.is_some_and(|next| next.is_ascii_digit()),
                '-' => next == Some('-') || before == Some('-'),
                '.' => next == Some('.') || before == Some('.'),
                '\'' => next == Some('\'') || before == Some('\'') || at == start && !is_ending(&chunk[at..]),
                _ => SYMBOLS.contains(c),
            };
            if is_symbol {
                word(&chunk[start..at], &chunk[at..], &mut tokens);
                start = at + c.len_utf8();
                tokens.push(c.to_string());
            }
        }
        word(&chunk[start..], "", &mut tokens);
    }
    tokens
}

fn is_ending(word: &str) -> bool {
    ENDINGS.contains(&word)
}

/// Adds a word with its period and its ending split off. A period stays where `after`, the text up to the
/// next space, does not close a sentence: `a phone., a cat`.
fn word(word: &str, after: &str, tokens: &mut Vec<String>) {
    let is_end = after.chars().all(|c| CLOSING.contains(c));
    let (word, period) = word.strip_suffix('.').filter(|_| is_end).map_or((word, ""), |word| (word, "."));
    let (word, quote) = word.strip_suffix('\'').map_or((word, ""), |word| (word, "'"));
    let ending = ENDINGS.into_iter().find(|ending| word.ends_with(ending)).unwrap_or("");
    let stem = &word[..word.len() - ending.len()];
    let parts = [stem, ending, quote, period];
    tokens.extend(parts.into_iter().filter(|part| !part.is_empty()).map(str::to_owned));
}
