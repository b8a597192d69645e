//! The distinct words of the texts, each with what the modules need to know about it.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use rust_stemmers::{Algorithm, Stemmer};

use super::data::Synonyms;
use super::normalize::{Prefixes, tokens};

/// The words of the texts, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    numbers: HashMap<String, u32>,
    words: Vec<Word>,
}

/// What is known about a word.
#[derive(Debug, Default)]
pub(super) struct Word {
    /// The number of its stem: words with equal stems have equal numbers.
    pub stem: u32,
    /// The numbers of its synsets, ascending.
    pub synsets: Vec<u32>,
    /// Whether it is on the list of function words.
    pub is_function_word: bool,
}

impl Vocabulary {
    /// Splits texts into words, and numbers these.
    pub fn add_all<S: AsRef<str> + Sync>(&mut self, texts: &[S], prefixes: &Prefixes) -> Vec<Vec<u32>> {
        let split: Vec<Vec<String>> = texts.par_iter().map(|text| tokens(text.as_ref(), prefixes)).collect();
        let mut number = |word: String| {
            let next = self.numbers.len() as u32;
            *self.numbers.entry(word).or_insert(next)
        };
        split.into_iter().map(|words| words.into_iter().map(&mut number).collect()).collect()
    }

    /// Looks all words up. Without synonyms, no word has a synset.
    pub fn look_up(&mut self, function_words: &HashSet<String>, synonyms: Option<&Synonyms>) {
        let stemmer = Stemmer::create(Algorithm::English);
        let mut stems: HashMap<String, u32> = HashMap::new();
        self.words.resize_with(self.numbers.len(), Word::default);
        for (text, &number) in &self.numbers {
            let next = stems.len() as u32;
            self.words[number as usize] = Word {
                stem: *stems.entry(stemmer.stem(text).into_owned()).or_insert(next),
                synsets: synonyms.map(|synonyms| synonyms.synsets(text)).unwrap_or_default(),
                is_function_word: function_words.contains(text),
            };
        }
    }

    pub fn word(&self, number: u32) -> &Word {
        &self.words[number as usize]
    }

    /// The number of a word of the texts.
    pub fn number(&self, word: &str) -> Option<u32> {
        self.numbers.get(word).copied()
    }

    /// All words by number.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts = vec![""; self.numbers.len()];
        for (text, &number) in &self.numbers {
            texts[number as usize] = text;
        }
        texts
    }
}

impl Word {
    /// Whether both words are in one synset.
    pub fn is_synonym_of(&self, other: &Self) -> bool {
        let (mut one, mut two) = (&self.synsets[..], &other.synsets[..]);
        while let ([first, after_first @ ..], [second, after_second @ ..]) = (one, two) {
            match first.cmp(second) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => one = after_first,
                std::cmp::Ordering::Greater => two = after_second,
            }
        }
        false
    }
}
