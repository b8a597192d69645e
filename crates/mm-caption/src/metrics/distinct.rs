//! Distinct-1 to distinct-3 (Li et al., 2016): how varied captions are, whatever their images.

use std::collections::HashSet;

use super::ngrams::{Words, pack};
use super::ptb;

/// Different n-grams of all tokenized captions over their n-grams, for n from 1 to 3; 0 without n-grams. It
/// falls with the number of captions, so compare only sets of one size.
pub fn distinct<S: AsRef<str>>(captions: &[S]) -> [f64; 3] {
    let mut words = Words::default();
    let captions: Vec<Vec<u32>> = captions
        .iter()
        .map(|tokens| ptb::words(tokens.as_ref()).map(|word| words.number(word)).collect())
        .collect();
    std::array::from_fn(|order| {
        let ngrams = || captions.iter().flat_map(|words| words.windows(order + 1)).map(pack);
        let total = ngrams().count();
        let different = ngrams().collect::<HashSet<_>>().len();
        if total == 0 { 0.0 } else { different as f64 / total as f64 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_ngrams_count_once() {
        assert_eq!(distinct(&["a b a b", "a b"]), [2.0 / 6.0, 2.0 / 4.0, 1.0]);
        assert_eq!(distinct(&["", "a"]), [1.0, 0.0, 0.0]);
    }
}
