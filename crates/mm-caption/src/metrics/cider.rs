//! CIDEr and CIDEr-D (Vedantam et al., 2015): how similar a caption's n-grams are to the references', where a
//! rare n-gram weighs more than one that most images have.
//!
//! The function that pycocoevalcap calls CIDEr is CIDEr-D. [`Cider`] holds the weights and scores tokenized
//! captions; the references of an image are prepared once and score any number of captions, as the reward of
//! self-critical training needs.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::document_frequencies::DocumentFrequencies;
use super::ngrams::{Ngram, ORDERS, counts};
use super::ptb;

/// Width of the length penalty of CIDEr-D, in words.
const SIGMA: f64 = 6.0;

/// Which of the two measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CiderForm {
    /// CIDEr-D, of pycocoevalcap: an n-gram counts at most as often as the reference has it, and a caption of
    /// another length loses.
    Robust,
    /// CIDEr: the plain cosine.
    Plain,
}

/// Scores captions against prepared references.
#[derive(Clone, Debug)]
pub struct Cider {
    frequencies: Arc<DocumentFrequencies>,
    form: CiderForm,
}

/// The weighted n-grams of one caption.
#[derive(Clone, Debug)]
struct Weighted {
    /// Ascending n-grams of each order with count times weight.
    ngrams: [Vec<(Ngram, f64)>; ORDERS],
    norms: [f64; ORDERS],
    /// The peer's length: the number of bigrams.
    length: f64,
}

/// The references of one image, weighted for one [`Cider`].
#[derive(Clone, Debug)]
pub struct PreparedReferences {
    references: Vec<Weighted>,
    /// Numbers of words that the document frequencies do not have.
    other_words: HashMap<String, u32>,
}

impl Cider {
    /// CIDEr-D, or the plain form, with the weights of `frequencies`.
    pub fn new(frequencies: Arc<DocumentFrequencies>, form: CiderForm) -> Self {
        Self { frequencies, form }
    }

    /// The document frequencies.
    pub fn frequencies(&self) -> &DocumentFrequencies {
        &self.frequencies
    }

    /// Prepares the tokenized references of an image.
    pub fn prepare<S: AsRef<str>>(&self, references: &[S]) -> PreparedReferences {
        let mut other_words = HashMap::new();
        let references =
            references.iter().map(|tokens| self.weigh(tokens.as_ref(), &mut other_words)).collect();
        PreparedReferences { references, other_words }
    }

    /// The score of a tokenized caption: the mean over orders and references, times ten. It is 0 without
    /// references.
    pub fn score(&self, hypothesis: &str, references: &PreparedReferences) -> f64 {
        let mut other_words = references.other_words.clone();
        let hypothesis = self.weigh(hypothesis, &mut other_words);
        let similarities =
            references.references.iter().map(|reference| self.similarity(&hypothesis, reference));
        let count = references.references.len().max(1) as f64;
        10.0 * similarities.sum::<f64>() / ORDERS as f64 / count
    }

    /// The scores of tokenized captions, each against the references with the same position, in parallel.
    /// Ends with the shorter slice.
    pub fn score_batch<S: AsRef<str> + Sync>(
        &self,
        hypotheses: &[S],
        references: &[&PreparedReferences],
    ) -> Vec<f64> {
        let pairs = hypotheses.par_iter().zip(references);
        pairs.map(|(hypothesis, references)| self.score(hypothesis.as_ref(), references)).collect()
    }

    /// Numbers and weighs the words of a caption. Words without document frequency get numbers of their own.
    fn weigh(&self, tokens: &str, other_words: &mut HashMap<String, u32>) -> Weighted {
        let known = &self.frequencies.words;
        let mut number = |word: &str| {
            if let Some(number) = known.get(word).or_else(|| other_words.get(word).copied()) {
                return number;
            }
            let number = known.len() + other_words.len() as u32;
            other_words.insert(word.to_owned(), number);
            number
        };
        let words: Vec<u32> = ptb::words(tokens).map(&mut number).collect();
        let weigh = |(ngram, count)| (ngram, f64::from(count) * self.frequencies.weight(ngram));
        let ngrams = counts(&words).map(|counted| counted.into_iter().map(weigh).collect::<Vec<_>>());
        let norm = |order: usize| ngrams[order].iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
        let norms = std::array::from_fn(norm);
        Weighted { ngrams, norms, length: words.len().saturating_sub(1) as f64 }
    }

    /// The sum over the orders of the cosine of two captions, clipped and penalized in the robust form.
    fn similarity(&self, hypothesis: &Weighted, reference: &Weighted) -> f64 {
        let mut sum = 0.0;
        for order in 0..ORDERS {
            let norms = hypothesis.norms[order] * reference.norms[order];
            if norms > 0.0 {
                sum += self.product(&hypothesis.ngrams[order], &reference.ngrams[order]) / norms;
            }
        }
        match self.form {
            CiderForm::Robust => {
                let difference = hypothesis.length - reference.length;
                sum * (-(difference * difference) / (2.0 * SIGMA * SIGMA)).exp()
            }
            CiderForm::Plain => sum,
        }
    }

    /// The product of two ascending sparse vectors.
    fn product(&self, hypothesis: &[(Ngram, f64)], reference: &[(Ngram, f64)]) -> f64 {
        let mut product = 0.0;
        let mut rest = reference;
        for &(ngram, weight) in hypothesis {
            let before = rest.iter().take_while(|&&(other, _)| other < ngram).count();
            rest = &rest[before..];
            let Some(&(other, reference_weight)) = rest.first() else { break };
            if other == ngram {
                let clipped =
                    if self.form == CiderForm::Robust { weight.min(reference_weight) } else { weight };
                product += clipped * reference_weight;
            }
        }
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cider(form: CiderForm) -> Cider {
        let images =
            [vec!["a dog runs fast", "a dog"], vec!["a cat sits"], vec!["the red bus stops here now"]];
        Cider::new(Arc::new(DocumentFrequencies::from_references(&images)), form)
    }

    fn score(form: CiderForm, hypothesis: &str, references: &[&str]) -> f64 {
        let cider = cider(form);
        cider.score(hypothesis, &cider.prepare(references))
    }

    #[test]
    fn a_caption_equal_to_its_reference_scores_ten_and_less_if_it_is_short() {
        assert!((score(CiderForm::Robust, "a dog runs fast", &["a dog runs fast"]) - 10.0).abs() < 1e-12);
        // Three words have no 4-gram.
        assert!((score(CiderForm::Robust, "a cat sits", &["a cat sits"]) - 7.5).abs() < 1e-12);
    }

    #[test]
    fn the_robust_form_does_not_reward_repetition() {
        let reference = ["a dog runs fast"];
        let once = score(CiderForm::Robust, "a dog runs fast", &reference);
        let thrice = score(CiderForm::Robust, "a dog runs fast fast fast", &reference);
        assert!(thrice < once);
        let plain = score(CiderForm::Plain, "fast fast fast", &reference);
        assert!(plain > score(CiderForm::Robust, "fast fast fast", &reference));
    }

    #[test]
    fn words_without_frequency_match_each_other_and_nothing_else() {
        let same = score(CiderForm::Robust, "zebra zebra okapi gnu", &["zebra zebra okapi gnu"]);
        assert!((same - 10.0).abs() < 1e-12);
        assert_eq!(score(CiderForm::Robust, "quagga", &["zebra okapi"]), 0.0);
    }

    #[test]
    fn empty_captions_and_missing_references_score_zero() {
        for (hypothesis, references) in [("", &["a dog"][..]), ("a dog", &[""]), ("", &[""]), ("a", &[])] {
            assert_eq!(score(CiderForm::Robust, hypothesis, references), 0.0);
        }
    }

    #[test]
    fn a_batch_gives_the_scores_of_its_captions() {
        let cider = cider(CiderForm::Robust);
        let prepared = [cider.prepare(&["a dog"]), cider.prepare(&["a cat sits", "the cat"])];
        let batch = cider.score_batch(&["a dog runs", "a cat"], &[&prepared[0], &prepared[1]]);
        assert_eq!(batch, [cider.score("a dog runs", &prepared[0]), cider.score("a cat", &prepared[1])]);
        assert!(batch[1] > 0.0);
    }
}
