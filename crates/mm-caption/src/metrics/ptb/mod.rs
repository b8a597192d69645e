//! The tokenizer of the COCO caption evaluation.
//!
//! pycocoevalcap runs the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1 with `-preserveLines -lowerCase`
//! over all captions, one a line, and drops 17 punctuation tokens. All its metrics count the tokens that are
//! left, so a metric equals the peer's only if the tokens do. This is a scanner written for that: at each
//! position every rule that can start there is tried, the longest match wins, and of equal matches the first.
//! A rule's length counts what it looks ahead at.
//!
//! A rule may look past the end of the line: the peer reads `vitamin C.` as `vitamin c.`, but as `vitamin c`
//! if the next line begins with `The`. [`tokenize_lines`] does the same and equals the peer on any file;
//! [`tokenize`] is the peer on a file of one line.

mod abbreviations;
mod characters;
mod number;
mod quote;
mod scanner;
mod symbol;
mod unicode;
mod web;
mod word;

#[cfg(test)]
mod tests;

use rayon::prelude::*;

use scanner::Scanner;

/// The tokens that the peer drops. The lower-casing comes first, so that `-LRB-` is `-lrb-` by then and
/// stays.
const DROPPED: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// Characters of the following lines that the rules can need: a sentence starter and the space after it.
const LOOKAHEAD: usize = 64;

/// The tokens of one caption in lower case, without punctuation, joined by spaces.
///
/// A token can contain U+00A0 (a mixed fraction, `3 1/2`, is one token). The peer's BLEU and CIDEr split
/// tokens there and its ROUGE-L does not; [`words`] and [`spaced`] are the two readings.
pub fn tokenize(caption: &str) -> String {
    Scanner::new().scan(caption, "")
}

/// The tokens of each caption, as the peer finds them in a file with one caption a line.
pub fn tokenize_lines<S: AsRef<str> + Sync>(captions: &[S]) -> Vec<String> {
    let scan = |scanner: &mut Scanner, line: usize| {
        let mut following = String::new();
        for next in &captions[line + 1..] {
            following.push('\n');
            following.push_str(next.as_ref().get(..LOOKAHEAD).unwrap_or(next.as_ref()));
            if following.len() >= LOOKAHEAD {
                break;
            }
        }
        scanner.scan(captions[line].as_ref(), &following)
    };
    (0..captions.len()).into_par_iter().with_min_len(64).map_init(Scanner::new, scan).collect()
}

/// The words of a tokenized caption as BLEU and CIDEr see them: split at every white space.
pub fn words(tokens: &str) -> impl Iterator<Item = &str> {
    tokens.split(is_python_space).filter(|word| !word.is_empty())
}

/// The words of a tokenized caption as ROUGE-L sees them: split at single spaces. An empty caption is one
/// empty word.
pub fn spaced(tokens: &str) -> impl Iterator<Item = &str> {
    tokens.split(' ')
}

/// The characters at which Python's `str.split` splits. Rust's white space is without U+001C to U+001F.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}
