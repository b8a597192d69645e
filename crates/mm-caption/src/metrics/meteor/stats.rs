//! The statistics of an alignment, and the score that follows from them.

use std::ops::AddAssign;

use super::align::{Match, chunks};
use super::{ALPHA, BETA, DELTA, GAMMA, WEIGHTS};

/// The counts of one side of a pair: the hypothesis or the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Side {
    words: u64,
    function_words: u64,
    /// The matched content words by module.
    content: [u64; 4],
    /// The matched function words by module.
    function: [u64; 4],
}

/// The statistics of an alignment. They add up over a corpus, whose score is that of the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stats {
    hypothesis: Side,
    reference: Side,
    chunks: u64,
}

impl Stats {
    /// Counts an alignment. The flags tell which words are function words.
    pub fn of(alignment: &[Option<Match>], hypothesis: &[bool], reference: &[bool]) -> Self {
        let mut stats = Self {
            hypothesis: Side::of(hypothesis),
            reference: Side::of(reference),
            chunks: chunks(alignment) as u64,
        };
        for found in alignment.iter().flatten() {
            let [in_reference, in_hypothesis] = found.words();
            stats.reference.count(&reference[in_reference], found.module);
            stats.hypothesis.count(&hypothesis[in_hypothesis], found.module);
        }
        stats
    }

    /// The score in 0 to 1.
    pub fn score(&self) -> f64 {
        let (precision, recall) = (self.hypothesis.weighted_share(), self.reference.weighted_share());
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragmentation = if self.is_one_chunk() {
            0.0
        } else {
            let matched = self.hypothesis.matched() + self.reference.matched();
            self.chunks as f64 / (matched as f64 / 2.0)
        };
        let score = mean * (1.0 - GAMMA * fragmentation.powf(BETA));
        // Not a number without words or without matches.
        if score.is_nan() { 0.0 } else { score.max(0.0) }
    }

    /// Whether every word matches in one chunk, so that nothing is out of order.
    fn is_one_chunk(&self) -> bool {
        let is_matched = |side: &Side| side.matched() == side.words;
        is_matched(&self.hypothesis) && is_matched(&self.reference) && self.chunks == 1
    }
}

impl Side {
    fn of(is_function_word: &[bool]) -> Self {
        let function_words = is_function_word.iter().filter(|&&is| is).count() as u64;
        Self { words: is_function_word.len() as u64, function_words, ..Self::default() }
    }

    fn count(&mut self, is_function_word: &[bool], module: usize) {
        for &is in is_function_word {
            let counts = if is { &mut self.function } else { &mut self.content };
            counts[module] += 1;
        }
    }

    fn matched(&self) -> u64 {
        self.content.iter().chain(&self.function).sum()
    }

    /// The weight of the matched words in that of all words.
    fn weighted_share(&self) -> f64 {
        // One sum in METEOR's order, so that equal scores of two references round equally.
        let kinds = [(&self.content, DELTA), (&self.function, 1.0 - DELTA)];
        let terms = kinds.into_iter().flat_map(|(counts, by_kind)| {
            counts.iter().zip(WEIGHTS).map(move |(&count, weight)| count as f64 * weight * by_kind)
        });
        let function_words = self.function_words as f64;
        let all = DELTA * (self.words as f64 - function_words) + (1.0 - DELTA) * function_words;
        terms.fold(0.0, |sum, term| sum + term) / all
    }
}

impl AddAssign for Side {
    fn add_assign(&mut self, other: Self) {
        self.words += other.words;
        self.function_words += other.function_words;
        for (sums, counts) in [(&mut self.content, other.content), (&mut self.function, other.function)] {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

impl AddAssign for Stats {
    /// Adds the statistics of a pair. One that matches in one chunk adds none, as in METEOR.
    fn add_assign(&mut self, other: Self) {
        self.chunks += if other.is_one_chunk() { 0 } else { other.chunks };
        self.hypothesis += other.hypothesis;
        self.reference += other.reference;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(start: usize, hypothesis_start: usize, module: usize) -> Option<Match> {
        Some(Match { start, length: 1, hypothesis_start, hypothesis_length: 1, module })
    }

    #[test]
    fn equal_texts_score_one_and_others_nothing() {
        let equal = Stats::of(&[one(0, 0, 0), one(1, 1, 0)], &[false, true], &[false, true]);
        assert_eq!(equal.score(), 1.0);
        assert_eq!(Stats::of(&[None], &[false], &[false]).score(), 0.0);
        assert_eq!(Stats::of(&[], &[], &[]).score(), 0.0);
    }

    #[test]
    fn the_score_follows_the_formula() {
        // Hypothesis: content, function, content; reference: content, content. One exact and one stem match.
        let stats = Stats::of(&[one(0, 0, 0), one(1, 2, 1)], &[false, true, false], &[false, false]);
        let precision = (0.75 + 0.6 * 0.75) / (2.0 * 0.75 + 0.25);
        let recall = (0.75 + 0.6 * 0.75) / (2.0 * 0.75);
        let mean = 1.0 / (0.15 / precision + 0.85 / recall);
        let penalty = 0.6 * (2.0_f64 / 2.0).powf(0.2);
        assert!((stats.score() - mean * (1.0 - penalty)).abs() < 1e-12);
    }

    #[test]
    fn a_corpus_scores_as_its_summed_statistics() {
        let mut sum = Stats::default();
        sum += Stats::of(&[one(0, 0, 0), None], &[false], &[false, false]);
        sum += Stats::of(&[None], &[false], &[false]);
        let mean: f64 = 1.0 / (0.15 / 0.5 + 0.85 * 3.0);
        assert!((sum.score() - mean * (1.0 - 0.6)).abs() < 1e-12);
        sum += Stats::of(&[one(0, 0, 0)], &[false], &[false]);
        let mean: f64 = 1.0 / (0.15 * 1.5 + 0.85 * 2.0);
        assert!((sum.score() - mean * (1.0 - 0.6 * 0.5_f64.powf(0.2))).abs() < 1e-12);
    }
}
