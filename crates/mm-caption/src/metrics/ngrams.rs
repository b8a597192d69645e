//! Words as numbers, and n-grams of up to four words as one number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The longest n-grams.
pub(super) const ORDERS: usize = 4;

/// An n-gram: 32 bits a word, the words' numbers plus one, so that no n-gram is the beginning of another.
pub(super) type Ngram = u128;

/// Hashes n-grams and numbers by multiplication: they are not an attacker's choice.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
        self.write_u64((number >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// A map from n-grams.
pub(super) type NgramMap<V> = HashMap<Ngram, V, BuildHasherDefault<NumberHasher>>;

/// Numbers for words, given in order of their first appearance.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    numbers: HashMap<String, u32>,
}

impl Words {
    /// The number of a word, if it has one.
    pub fn get(&self, word: &str) -> Option<u32> {
        self.numbers.get(word).copied()
    }

    /// The number of a word, which gets one if it has none.
    pub fn number(&mut self, word: &str) -> u32 {
        if let Some(number) = self.get(word) {
            return number;
        }
        let number = self.len();
        self.numbers.insert(word.to_owned(), number);
        number
    }

    /// How many words have a number.
    pub fn len(&self) -> u32 {
        self.numbers.len() as u32
    }

    /// All words with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.numbers.iter().map(|(word, &number)| (word.as_str(), number))
    }
}

/// The n-gram of a few words.
pub(super) fn pack(words: &[u32]) -> Ngram {
    words.iter().fold(0, |ngram, &word| (ngram << 32) | (u128::from(word) + 1))
}

/// The n-grams of each order, ascending, with how often each occurs.
pub(super) fn counts(words: &[u32]) -> [Vec<(Ngram, u32)>; ORDERS] {
    std::array::from_fn(|order| {
        let mut ngrams: Vec<Ngram> = words.windows(order + 1).map(pack).collect();
        ngrams.sort_unstable();
        let mut counted: Vec<(Ngram, u32)> = Vec::with_capacity(ngrams.len());
        for ngram in ngrams {
            match counted.last_mut() {
                Some((last, count)) if *last == ngram => *count += 1,
                _ => counted.push((ngram, 1)),
            }
        }
        counted
    })
}

/// How often `ngram` occurs in ascending counts.
pub(super) fn count_of(counted: &[(Ngram, u32)], ngram: Ngram) -> u32 {
    counted.binary_search_by_key(&ngram, |&(other, _)| other).map_or(0, |index| counted[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_are_counted_by_order() {
        let counted = counts(&[0, 1, 0, 1]);
        assert_eq!(counted[0], [(pack(&[0]), 2), (pack(&[1]), 2)]);
        assert_eq!(count_of(&counted[1], pack(&[0, 1])), 2);
        assert_eq!(count_of(&counted[1], pack(&[1, 1])), 0);
        assert_eq!(counted.map(|of_order| of_order.len()), [2, 2, 2, 1]);
        assert_ne!(pack(&[0]), pack(&[0, 0]));
    }
}
