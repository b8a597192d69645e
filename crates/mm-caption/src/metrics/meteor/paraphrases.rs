//! The paraphrases of METEOR that the texts at hand need, read from the compressed table in one pass.
//!
//! The table has 5.3 million pairs of phrases. Only pairs of which both phrases occur in the texts can match,
//! a few in a thousand, so the table is streamed and no index is built: one thread decompresses, one looks
//! the hash of each phrase up among the hashes of the n-grams of the texts.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use flate2::read::MultiGzDecoder;

use super::data::MeteorError;
use super::vocabulary::Vocabulary;

/// The longest phrases of the table, in words. Longer ones are read, and never found.
const LONGEST: usize = 7;

/// The size of a decompressed block.
const BLOCK: usize = 1 << 20;

/// The number of blocks that wait for the reader of phrases.
const BLOCKS_AHEAD: usize = 4;

/// Pairs of phrases that mean the same, as numbers of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct Paraphrases {
    /// The paraphrases of each phrase, in the order of the table.
    by_phrase: HashMap<Box<[u32]>, Vec<Box<[u32]>>>,
    /// The number of words of the longest phrase that begins with each word.
    longest: HashMap<u32, usize>,
}

impl Paraphrases {
    /// Reads the pairs of which both phrases occur in the texts.
    ///
    /// # Errors
    /// The table cannot be read, or does not consist of triples of lines.
    pub fn read<'a>(
        path: &Path,
        vocabulary: &Vocabulary,
        texts: impl Iterator<Item = &'a Vec<u32>>,
    ) -> Result<Self, MeteorError> {
        let error = |source| MeteorError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        let phrases = NGrams::of(vocabulary, texts);
        let mut found = Self::default();
        let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
        let is_complete = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut decoder = MultiGzDecoder::new(file);
                loop {
                    let block = read_block(&mut decoder);
                    let is_last = block.as_ref().map_or(true, Vec::is_empty);
                    if sender.send(block).is_err() || is_last {
                        return;
                    }
                }
            });
            found.read_blocks(&receiver, &phrases, vocabulary)
        });
        if !is_complete.map_err(error)? {
            let reason = "its last entry is not complete: three lines are expected, a probability and two \
                          phrases; get the file again"
                .to_owned();
            return Err(MeteorError::Format { path: path.to_owned(), reason });
        }
        Ok(found)
    }

    /// Reads lines from blocks that may end anywhere. False where the last entry is not complete.
    fn read_blocks(
        &mut self,
        blocks: &Receiver<std::io::Result<Vec<u8>>>,
        phrases: &NGrams,
        vocabulary: &Vocabulary,
    ) -> std::io::Result<bool> {
        let mut entry = Entry::default();
        let mut carry: Vec<u8> = Vec::new();
        while let Ok(block) = blocks.recv() {
            let block = block?;
            if block.is_empty() {
                break;
            }
            let mut rest = &block[..];
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                if carry.is_empty() {
                    self.read_line(&mut entry, &rest[..end], phrases, vocabulary);
                } else {
                    carry.extend_from_slice(&rest[..end]);
                    self.read_line(&mut entry, &carry, phrases, vocabulary);
                    carry.clear();
                }
                rest = &rest[end + 1..];
            }
            carry.extend_from_slice(rest);
        }
        if !carry.is_empty() {
            self.read_line(&mut entry, &carry, phrases, vocabulary);
        }
        Ok(entry.line == 0)
    }

    fn read_line(&mut self, entry: &mut Entry, line: &[u8], phrases: &NGrams, vocabulary: &Vocabulary) {
        match entry.line {
            0 => {}
            1 => {
                // Entries of one phrase follow each other.
                if entry.phrase != line {
                    entry.phrase.clear();
                    entry.phrase.extend_from_slice(line);
                    entry.numbers = if phrases.contains(line) { numbers(line, vocabulary) } else { None };
                }
            }
            _ => {
                if let Some(phrase) = &entry.numbers
                    && phrases.contains(line)
                    && let Some(paraphrase) = numbers(line, vocabulary)
                {
                    self.add(phrase, paraphrase);
                }
            }
        }
        entry.line = (entry.line + 1) % 3;
    }

    /// Adds a pair.
    pub fn add(&mut self, phrase: &[u32], paraphrase: Box<[u32]>) {
        let Some(&first) = phrase.first() else { return };
        if paraphrase.is_empty() {
            return;
        }
        let longest = self.longest.entry(first).or_default();
        *longest = phrase.len().max(*longest);
        match self.by_phrase.get_mut(phrase) {
            Some(paraphrases) => paraphrases.push(paraphrase),
            None => {
                self.by_phrase.insert(phrase.into(), vec![paraphrase]);
            }
        }
    }

    /// The paraphrases of the first word of a text, of the first two words, and so on, with the number of
    /// words.
    pub fn of_prefixes<'a>(&'a self, text: &'a [u32]) -> impl Iterator<Item = (usize, &'a [u32])> {
        let longest = text.first().and_then(|first| self.longest.get(first)).copied().unwrap_or(0);
        (1..=longest.min(text.len()))
            .filter_map(|length| Some((length, self.by_phrase.get(&text[..length])?)))
            .flat_map(|(length, paraphrases)| paraphrases.iter().map(move |words| (length, &words[..])))
    }
}

/// The state within an entry of three lines: a probability, a phrase, a paraphrase.
#[derive(Default)]
struct Entry {
    line: usize,
    phrase: Vec<u8>,
    /// The words of the phrase, if it occurs in the texts.
    numbers: Option<Box<[u32]>>,
}

/// The words of a phrase; `None` if one is not in the texts.
fn numbers(phrase: &[u8], vocabulary: &Vocabulary) -> Option<Box<[u32]>> {
    std::str::from_utf8(phrase).ok()?.split_ascii_whitespace().map(|word| vocabulary.number(word)).collect()
}

/// A block of the size [`BLOCK`], shorter at the end.
fn read_block(reader: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    reader.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block)
}

/// The hashes of all phrases of the texts up to [`LONGEST`] words.
struct NGrams {
    hashes: HashSet<u64>,
    /// A bit for each value of the low bits of a hash. It fits a cache, and rules out most phrases of the
    /// table.
    bits: Vec<u64>,
}

/// The number of bits of a hash that [`NGrams::bits`] uses.
const FILTER_BITS: u32 = 25;

impl NGrams {
    fn of<'a>(vocabulary: &Vocabulary, texts: impl Iterator<Item = &'a Vec<u32>>) -> Self {
        let words = vocabulary.texts();
        let (mut hashes, mut bits) = (HashSet::new(), vec![0; 1 << (FILTER_BITS - 6)]);
        let mut phrase: Vec<u8> = Vec::new();
        let mut known: HashSet<&[u32]> = HashSet::new();
        for text in texts.filter(|text| known.insert(text)) {
            for start in 0..text.len() {
                phrase.clear();
                for &word in text[start..].iter().take(LONGEST) {
                    if !phrase.is_empty() {
                        phrase.push(b' ');
                    }
                    phrase.extend_from_slice(words[word as usize].as_bytes());
                    let hash = hash(&phrase);
                    let place = Self::place(hash);
                    bits[place.0] |= place.1;
                    hashes.insert(hash);
                }
            }
        }
        Self { hashes, bits }
    }

    /// The index and the mask of the bit of a hash.
    fn place(hash: u64) -> (usize, u64) {
        let low = hash & ((1 << FILTER_BITS) - 1);
        ((low >> 6) as usize, 1 << (low & 63))
    }

    fn contains(&self, phrase: &[u8]) -> bool {
        let hash = hash(phrase);
        let (index, mask) = Self::place(hash);
        self.bits[index] & mask != 0 && self.hashes.contains(&hash)
    }
}

/// A hash of a few bytes, eight at a time. It need not resist attacks: a collision costs a look-up.
fn hash(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
        hash ^= hash >> 32;
    }
    hash.wrapping_mul(ODD) ^ (hash >> 29)
}
