//! In how many images' references each n-gram occurs: the weights of CIDEr.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::{MetricsError, read_error, write_error};
use super::ngrams::{Ngram, NgramMap, ORDERS, Words, pack};
use super::ptb;

/// Below this number of images, the weights say little and CIDEr is not comparable.
pub const FEW_IMAGES: usize = 100;

/// Document frequencies of n-grams of one to four words, where a document is the references of one image.
#[derive(Clone, Debug)]
pub struct DocumentFrequencies {
    images: usize,
    pub(super) words: Words,
    /// ln(images) - ln(frequency) of the n-grams of two images or more.
    weights: NgramMap<f64>,
    /// The weight of all others.
    rarest: f64,
}

/// The form of the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    images: usize,
    /// The n-grams of two images or more, their words joined by spaces. An n-gram of one image weighs what an
    /// unknown one does.
    frequencies: BTreeMap<String, usize>,
}

impl DocumentFrequencies {
    /// Counts the tokenized references of many images.
    pub fn from_references<S: AsRef<str> + Sync>(images: &[Vec<S>]) -> Self {
        let mut words = Words::default();
        let numbered: Vec<Vec<Vec<u32>>> = images
            .iter()
            .map(|references| {
                let numbers =
                    |tokens: &S| ptb::words(tokens.as_ref()).map(|word| words.number(word)).collect();
                references.iter().map(numbers).collect()
            })
            .collect();
        // One part of the n-grams a task, so that no two tasks count the same one.
        let parts = rayon::current_num_threads().clamp(1, 16) as u64;
        let counted: Vec<NgramMap<u32>> = (0..parts)
            .into_par_iter()
            .map(|part| {
                let mut counted = NgramMap::<u32>::default();
                let mut ngrams: Vec<Ngram> = Vec::new();
                for references in &numbered {
                    ngrams.clear();
                    for order in 1..=ORDERS {
                        let all = references.iter().flat_map(|words| words.windows(order));
                        ngrams.extend(all.filter(|words| u64::from(words[0]) % parts == part).map(pack));
                    }
                    ngrams.sort_unstable();
                    ngrams.dedup();
                    for &ngram in &ngrams {
                        *counted.entry(ngram).or_default() += 1;
                    }
                }
                counted
            })
            .collect();
        let shared = counted.iter().flatten().filter(|&(_, &count)| count > 1);
        let shared = shared.map(|(&ngram, &count)| (ngram, count as usize));
        Self::new(images.len(), words, shared)
    }

    fn new(images: usize, words: Words, frequencies: impl Iterator<Item = (Ngram, usize)>) -> Self {
        let rarest = (images.max(1) as f64).ln();
        let weights = frequencies.map(|(ngram, count)| (ngram, rarest - (count as f64).ln())).collect();
        Self { images, words, weights, rarest }
    }

    /// The number of images whose references were counted.
    pub fn images(&self) -> usize {
        self.images
    }

    /// ln(images / frequency), with a frequency of at least 1.
    pub(super) fn weight(&self, ngram: Ngram) -> f64 {
        self.weights.get(&ngram).copied().unwrap_or(self.rarest)
    }

    /// Why CIDEr with these frequencies is not comparable, if it is not.
    pub fn warning(&self) -> Option<String> {
        match self.images {
            0 | 1 => Some(format!(
                "CIDEr is 0 by construction: its weights are of {} image, and a word of every image weighs \
                 nothing; give document frequencies of a corpus",
                self.images
            )),
            images if images < FEW_IMAGES => Some(format!(
                "CIDEr's weights are of {images} images, fewer than {FEW_IMAGES}: it is not comparable with \
                 that of other sets; give document frequencies of a corpus"
            )),
            _ => None,
        }
    }

    /// Writes a JSON file: `images`, and `frequencies` of the n-grams of two images or more.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), MetricsError> {
        let mut texts = vec![""; self.words.len() as usize];
        for (word, number) in self.words.iter() {
            texts[number as usize] = word;
        }
        let text = |ngram: Ngram| {
            let numbers = (0..ORDERS).rev().map(|place| (ngram >> (32 * place)) as u32);
            let words: Vec<&str> =
                numbers.filter(|&number| number > 0).map(|number| texts[number as usize - 1]).collect();
            words.join(" ")
        };
        let count = |weight: f64| (self.rarest - weight).exp().round() as usize;
        let frequencies = self.weights.iter().map(|(&ngram, &weight)| (text(ngram), count(weight))).collect();
        let stored = Stored { images: self.images, frequencies };
        let file = File::create(path).map_err(|source| write_error(path, source))?;
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, &stored).map_err(|source| write_error(path, source.into()))?;
        file.flush().map_err(|source| write_error(path, source))
    }

    /// Reads a file that [`Self::save`] wrote.
    ///
    /// # Errors
    /// The file cannot be read, has another form, or has a frequency that its number of images excludes.
    pub fn load(path: &Path) -> Result<Self, MetricsError> {
        let file = File::open(path).map_err(|source| read_error(path, source))?;
        let stored: Stored = serde_json::from_reader(BufReader::new(file)).map_err(|source| {
            let expected = "expected {\"images\": N, \"frequencies\": {\"a dog\": N, ...}}";
            MetricsError::invalid(path, format!("{source}; {expected}"))
        })?;
        let mut words = Words::default();
        let mut frequencies = Vec::with_capacity(stored.frequencies.len());
        for (text, count) in stored.frequencies {
            let numbers: Vec<u32> = text.split(' ').map(|word| words.number(word)).collect();
            if text.is_empty() || numbers.len() > ORDERS {
                let problem = format!("\"{text}\" in `frequencies` is not of one to {ORDERS} words");
                return Err(MetricsError::invalid(path, problem));
            }
            if count == 0 || count > stored.images {
                let problem = format!(
                    "\"{text}\" in `frequencies` is of {count} images, of 1 to {} at most",
                    stored.images
                );
                return Err(MetricsError::invalid(path, problem));
            }
            frequencies.push((pack(&numbers), count));
        }
        Ok(Self::new(stored.images, words, frequencies.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> DocumentFrequencies {
        let images = [vec!["a dog", "a dog runs"], vec!["a cat"], vec!["a dog"], vec![""]];
        DocumentFrequencies::from_references(&images)
    }

    fn weight(frequencies: &DocumentFrequencies, ngram: &[&str]) -> f64 {
        let numbers: Vec<u32> = ngram.iter().map(|word| frequencies.words.get(word).unwrap()).collect();
        frequencies.weight(pack(&numbers))
    }

    #[test]
    fn an_image_counts_once_however_often_its_references_have_an_ngram() {
        let frequencies = corpus();
        assert_eq!(frequencies.images(), 4);
        assert_eq!(weight(&frequencies, &["a"]), 4.0_f64.ln() - 3.0_f64.ln());
        assert_eq!(weight(&frequencies, &["a", "dog"]), 4.0_f64.ln() - 2.0_f64.ln());
        assert_eq!(weight(&frequencies, &["runs"]), 4.0_f64.ln());
    }

    #[test]
    fn frequencies_are_saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("df.json");
        let frequencies = corpus();
        frequencies.save(&path).unwrap();
        let loaded = DocumentFrequencies::load(&path).unwrap();
        assert_eq!(loaded.images(), 4);
        for ngram in [&["a"][..], &["a", "dog"], &["dog"]] {
            assert_eq!(weight(&loaded, ngram), weight(&frequencies, ngram));
        }
    }

    #[test]
    fn a_bad_file_is_an_error_that_names_it_and_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("df.json");
        for (text, problem) in [
            ("{\"images\": 2}", "missing field `frequencies`"),
            ("{\"images\": 2, \"frequencies\": {\"a\": 3}}", "\"a\" in `frequencies` is of 3 images"),
            ("{\"images\": 2, \"frequencies\": {\"a b c d e\": 1}}", "not of one to 4 words"),
            ("[", "expected {\"images\""),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = DocumentFrequencies::load(&path).unwrap_err().to_string();
            assert!(error.contains("df.json") && error.contains(problem), "{error}");
        }
        let error = DocumentFrequencies::load(&folder.path().join("none.json")).unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
