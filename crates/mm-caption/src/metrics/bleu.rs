//! BLEU-1 to BLEU-4 (Papineni et al., 2002), with the constants of pycocoevalcap.

use std::ops::AddAssign;

use super::ngrams::{ORDERS, Words, count_of, counts};
use super::ptb;

/// What BLEU counts in one caption, or in many when added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BleuStatistics {
    /// N-grams of each order that a reference has as well, each at most as often as one reference has it.
    pub matches: [u64; ORDERS],
    /// N-grams of each order.
    pub guesses: [u64; ORDERS],
    /// Words.
    pub length: u64,
    /// Words of the reference of the closest length; of two equally close ones, the shorter.
    pub reference_length: u64,
}

impl BleuStatistics {
    /// Counts for one tokenized hypothesis. Without references nothing matches and the length is 0.
    pub fn new<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> Self {
        let mut words = Words::default();
        let mut numbers = |tokens| ptb::words(tokens).map(|word| words.number(word)).collect::<Vec<_>>();
        let hypothesis = numbers(hypothesis);
        let references: Vec<Vec<u32>> = references.iter().map(|tokens| numbers(tokens.as_ref())).collect();
        let counted = counts(&hypothesis);
        let counted_references: Vec<_> = references.iter().map(|reference| counts(reference)).collect();
        let matches = |order: usize| {
            let of = |&(ngram, count): &(_, u32)| {
                let most =
                    counted_references.iter().map(|reference| count_of(&reference[order], ngram)).max();
                u64::from(count.min(most.unwrap_or(0)))
            };
            counted[order].iter().map(of).sum()
        };
        let length = hypothesis.len();
        let closest = references.iter().map(Vec::len).min_by_key(|&other| (other.abs_diff(length), other));
        Self {
            matches: std::array::from_fn(matches),
            guesses: std::array::from_fn(|order| length.saturating_sub(order) as u64),
            length: length as u64,
            reference_length: closest.unwrap_or(0) as u64,
        }
    }

    /// BLEU-1 to BLEU-4. The small constants are pycocoevalcap's: they keep the quotients finite, and give a
    /// caption without a common 4-gram a BLEU-4 of about 1e-4 instead of 0.
    pub fn scores(&self) -> [f64; ORDERS] {
        const SMALL: f64 = 1e-9;
        const TINY: f64 = 1e-15;
        let ratio = (self.length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        let penalty = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|order| {
            product *= (self.matches[order] as f64 + TINY) / (self.guesses[order] as f64 + SMALL);
            product.powf(1.0 / (order + 1) as f64) * penalty
        })
    }
}

impl AddAssign for BleuStatistics {
    fn add_assign(&mut self, other: Self) {
        for order in 0..ORDERS {
            self.matches[order] += other.matches[order];
            self.guesses[order] += other.guesses[order];
        }
        self.length += other.length;
        self.reference_length += other.reference_length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_at_most_as_often_as_in_one_reference() {
        let found = BleuStatistics::new("the the the the", &["the cat", "the dog on the mat"]);
        assert_eq!((found.matches, found.guesses), ([2, 0, 0, 0], [4, 3, 2, 1]));
        assert_eq!((found.length, found.reference_length), (4, 5));
    }

    #[test]
    fn of_two_equally_close_references_the_shorter_counts() {
        let found = BleuStatistics::new("a b c", &["a b c d", "a b"]);
        assert_eq!(found.reference_length, 2);
    }

    #[test]
    fn a_caption_equal_to_a_reference_scores_one_and_an_empty_one_zero() {
        let scores = BleuStatistics::new("a b c d", &["a b c d"]).scores();
        assert!(scores.iter().all(|score| (score - 1.0).abs() < 1e-8), "{scores:?}");
        let empty = BleuStatistics::new("", &["a b c d"]).scores();
        assert!(empty.iter().all(|&score| score < 1e-6), "{empty:?}");
        let both = BleuStatistics::new("", &[""]).scores();
        assert!(both.iter().all(|score| score.is_finite()), "{both:?}");
    }
}
