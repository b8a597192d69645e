//! The four modules, which find the possible matches of a hypothesis with a reference.

use super::align::{Candidates, Match};
use super::paraphrases::Paraphrases;
use super::vocabulary::Vocabulary;

const EXACT: usize = 0;
const STEM: usize = 1;
const SYNONYM: usize = 2;
const PARAPHRASE: usize = 3;

/// All matches in the order of METEOR, which counts between equal alignments. Equal texts have exact matches
/// only.
pub(super) fn candidates(
    hypothesis: &[u32],
    reference: &[u32],
    vocabulary: &Vocabulary,
    paraphrases: &Paraphrases,
) -> Candidates {
    let mut found = Candidates::new(reference.len(), hypothesis.len());
    words(&mut found, EXACT, hypothesis, reference, |one, two| one == two);
    if hypothesis == reference {
        return found;
    }
    words(&mut found, STEM, hypothesis, reference, |one, two| {
        one != two && vocabulary.word(one).stem == vocabulary.word(two).stem
    });
    words(&mut found, SYNONYM, hypothesis, reference, |one, two| {
        one != two && vocabulary.word(one).is_synonym_of(vocabulary.word(two))
    });
    phrases(reference, hypothesis, paraphrases, |[start, length], [hypothesis_start, hypothesis_length]| {
        found.push(Match { start, length, hypothesis_start, hypothesis_length, module: PARAPHRASE });
    });
    phrases(hypothesis, reference, paraphrases, |[hypothesis_start, hypothesis_length], [start, length]| {
        found.push(Match { start, length, hypothesis_start, hypothesis_length, module: PARAPHRASE });
    });
    found
}

/// Adds the pairs of words that a module takes as equal.
fn words(
    found: &mut Candidates,
    module: usize,
    hypothesis: &[u32],
    reference: &[u32],
    is_match: impl Fn(u32, u32) -> bool,
) {
    for (start, &word) in reference.iter().enumerate() {
        for (hypothesis_start, &other) in hypothesis.iter().enumerate() {
            if is_match(word, other) {
                found.push(Match { start, length: 1, hypothesis_start, hypothesis_length: 1, module });
            }
        }
    }
}

/// Finds the phrases of `text` that have a paraphrase in `other`: start and length of both.
fn phrases(
    text: &[u32],
    other: &[u32],
    paraphrases: &Paraphrases,
    mut found: impl FnMut([usize; 2], [usize; 2]),
) {
    for start in 0..text.len() {
        for (length, paraphrase) in paraphrases.of_prefixes(&text[start..]) {
            for (place, window) in other.windows(paraphrase.len()).enumerate() {
                if window == paraphrase {
                    found([start, length], [place, paraphrase.len()]);
                }
            }
        }
    }
}
