//! METEOR 1.5 for English, equal to the Java program that `pycocoevalcap` runs.
//!
//! METEOR (Denkowski and Lavie 2014, <https://aclanthology.org/W14-3348>) aligns the words of a caption with
//! those of a reference and scores the alignment: the harmonic mean of precision and recall, less a penalty
//! for words in another order. Four modules find the matches of words:
//!
//! | module | equal are | weight |
//! |---|---|---|
//! | exact | words | 1.0 |
//! | stem | Snowball stems | 0.6 |
//! | synonym | WordNet synsets | 0.8 |
//! | paraphrase | phrases of a table | 0.6 |
//!
//! Content words count 0.75, the words of a list of function words 0.25. Of several references the best one
//! counts; the corpus score is computed from summed statistics and is not the mean of the segments.
//!
//! The data of METEOR (WordNet synsets, paraphrases) are not part of this crate: [`MeteorData::open`] reads
//! `meteor-1.5.jar` and `paraphrase-en.gz` as they are in the Python package `pycocoevalcap`.
//!
//! ```no_run
//! use mm_caption::metrics::meteor::MeteorData;
//!
//! let data = MeteorData::open("pycocoevalcap/meteor")?;
//! // Texts are PTB-tokenized, as for the other metrics.
//! let scores = data.score(&["a dog runs"], &[vec!["a dog is running", "the dog runs fast"]])?;
//! println!("{} of {:?}", scores.corpus, scores.segments);
//! # Ok::<(), mm_caption::metrics::meteor::MeteorError>(())
//! ```
//!
//! # Files
//!
//! `data.rs` reads the jar, `normalize.rs` splits lines into tokens, `vocabulary.rs` looks words up once,
//! `paraphrases.rs` reads the part of the table that the texts at hand need, `matches.rs` has the four
//! modules, `align.rs` the beam search and `stats.rs` the score.

mod align;
mod data;
mod matches;
mod normalize;
mod paraphrases;
mod stats;
mod vocabulary;

#[cfg(test)]
mod tests;

use rayon::prelude::*;

pub use data::{MeteorData, MeteorError};

use matches::candidates;
use paraphrases::Paraphrases;
use stats::Stats;
use vocabulary::Vocabulary;

/// The weight of precision in the harmonic mean, against recall.
const ALPHA: f64 = 0.85;
/// The exponent of the fragmentation.
const BETA: f64 = 0.2;
/// The largest penalty.
const GAMMA: f64 = 0.6;
/// The weight of content words, against function words.
const DELTA: f64 = 0.75;
/// The weights of the modules: exact, stem, synonym, paraphrase.
const WEIGHTS: [f64; 4] = [1.0, 0.6, 0.8, 0.6];

/// The scores of a corpus.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MeteorScores {
    /// The score of the summed statistics, in 0 to 1.
    pub corpus: f64,
    /// The score of each hypothesis with its best reference, in 0 to 1.
    pub segments: Vec<f64>,
}

impl MeteorData {
    /// Scores PTB-tokenized hypotheses, each against its references. An empty text scores 0.
    ///
    /// # Errors
    /// The numbers of hypotheses and lists of references differ, a list is empty, or the table of paraphrases
    /// cannot be read.
    pub fn score<S: AsRef<str> + Sync>(
        &self,
        hypotheses: &[S],
        references: &[Vec<S>],
    ) -> Result<MeteorScores, MeteorError> {
        if hypotheses.len() != references.len() {
            return Err(MeteorError::Lengths { hypotheses: hypotheses.len(), references: references.len() });
        }
        if let Some(segment) = references.iter().position(Vec::is_empty) {
            return Err(MeteorError::NoReference { segment });
        }
        let mut vocabulary = Vocabulary::default();
        // The separator of METEOR's input cannot be part of a hypothesis.
        let hypotheses: Vec<String> =
            hypotheses.iter().map(|text| text.as_ref().replace("|||", "")).collect();
        let hypotheses = vocabulary.add_all(&hypotheses, &self.prefixes);
        let flat: Vec<&str> = references.iter().flatten().map(S::as_ref).collect();
        let flat = vocabulary.add_all(&flat, &self.prefixes);
        vocabulary.look_up(&self.function_words, self.synonyms.as_ref());
        let paraphrases = match &self.paraphrases {
            Some(path) => Paraphrases::read(path, &vocabulary, hypotheses.iter().chain(&flat))?,
            None => Paraphrases::default(),
        };
        let mut rest = &flat[..];
        let pairs: Vec<(&Vec<u32>, &[Vec<u32>])> = hypotheses
            .iter()
            .zip(references)
            .map(|(hypothesis, references)| {
                let (of_this, after) = rest.split_at(references.len());
                rest = after;
                (hypothesis, of_this)
            })
            .collect();
        let best = |(hypothesis, references): (&Vec<u32>, &[Vec<u32>])| {
            best_reference(hypothesis, references, &vocabulary, &paraphrases)
        };
        let all: Vec<(f64, Stats)> = pairs.into_par_iter().map(best).collect();
        let mut sum = Stats::default();
        all.iter().for_each(|&(_, stats)| sum += stats);
        Ok(MeteorScores { corpus: sum.score(), segments: all.into_iter().map(|(score, _)| score).collect() })
    }
}

/// The score and the statistics with the first of the best references.
fn best_reference(
    hypothesis: &[u32],
    references: &[Vec<u32>],
    vocabulary: &Vocabulary,
    paraphrases: &Paraphrases,
) -> (f64, Stats) {
    let mut best = (-1.0, Stats::default());
    for reference in references {
        let alignment = candidates(hypothesis, reference, vocabulary, paraphrases).align();
        let flags = |text: &[u32]| -> Vec<bool> {
            text.iter().map(|&word| vocabulary.word(word).is_function_word).collect()
        };
        let stats = Stats::of(&alignment, &flags(hypothesis), &flags(reference));
        let score = stats.score();
        if score > best.0 {
            best = (score, stats);
        }
    }
    best
}
