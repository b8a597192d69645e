//! The held-out pairs: captions with known words, or whole subgroups.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::captions::words;
use crate::sources::splits::hash;

/// Changing this number changes the split, so that earlier results are no longer comparable.
const SEED: u64 = 0x6d6d_2d65_6d6f_6a69; // "mm-emoji"

/// The inverse of the held-out share.
const SHARE: usize = 10;

/// Larger subgroups stay in training.
const LARGEST_SUBGROUP: usize = 100;

/// The compositional split: a tenth of the pairs, rounded down. Each held-out caption is a new combination of
/// words that occur in training. `keys` and `canonical` are the key and canonical caption of each pair.
///
/// Pairs are visited in the order of a hash of their key. A pair is held out if each word of its canonical
/// caption still occurs in the canonical caption of another training pair:
/// `woman firefighter with medium skin tone` can be held out, `axolotl` cannot.
pub fn by_caption(keys: &[&str], canonical: &[&str]) -> Vec<bool> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    let distinct: Vec<HashSet<&str>> = canonical.iter().map(|caption| words(caption).collect()).collect();
    for word in distinct.iter().flatten() {
        *uses.entry(word).or_default() += 1;
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&index| hash(SEED, keys[index].as_bytes()));

    let mut held = vec![false; keys.len()];
    let mut wanted = keys.len() / SHARE;
    for index in order {
        if wanted == 0 {
            break;
        }
        if distinct[index].iter().all(|word| uses[word] > 1) {
            for word in &distinct[index] {
                *uses.entry(word).or_default() -= 1;
            }
            held[index] = true;
            wanted -= 1;
        }
    }
    held
}

/// The split of whole concepts: subgroups with at most a tenth of the pairs in total. `subgroups` is the
/// subgroup of each pair, `variants` whether it is a skin-tone variant.
///
/// Subgroups are visited in the order of a hash of their name, and each that still fits is held out. Those
/// with skin tones stay in training, and so does the largest one (the flags of countries): each would fill
/// most of the tenth with near duplicates.
pub fn by_subgroup(subgroups: &[&str], variants: &[bool]) -> Vec<bool> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for subgroup in subgroups {
        *sizes.entry(subgroup).or_default() += 1;
    }
    for (subgroup, _) in subgroups.iter().zip(variants).filter(|(_, is_variant)| **is_variant) {
        sizes.remove(subgroup);
    }
    let mut candidates: Vec<(&str, usize)> =
        sizes.into_iter().filter(|&(_, size)| size <= LARGEST_SUBGROUP).collect();
    candidates.sort_by_key(|(subgroup, _)| hash(SEED, subgroup.as_bytes()));

    let mut room = subgroups.len() / SHARE;
    let mut held: HashSet<&str> = HashSet::new();
    for (subgroup, size) in candidates {
        if size <= room {
            room -= size;
            held.insert(subgroup);
        }
    }
    subgroups.iter().map(|subgroup| held.contains(subgroup)).collect()
}
