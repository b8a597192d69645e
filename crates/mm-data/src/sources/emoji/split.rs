//! Which pairs are held out: captions whose words are known, or whole subgroups.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::captions::words;

/// Changing this number makes another split, with which no earlier result can be compared.
const SEED: u64 = 0x6d6d_2d65_6d6f_6a69; // "mm-emoji"

/// One pair in so many is held out, by either split.
const SHARE: usize = 10;

/// A subgroup of more pairs than this stays in training.
const LARGEST_SUBGROUP: usize = 100;

/// The compositional split: a tenth of the pairs, rounded down, each new as a whole and known in its words.
/// `keys` and `canonical` name and describe each pair.
///
/// The pairs are walked in the order of a hash of their key. One is held out when every word of its canonical
/// caption still stands in the canonical caption of another pair that remains in training; so
/// `woman firefighter with medium skin tone` can be held out, and `axolotl` cannot.
pub fn by_caption(keys: &[&str], canonical: &[&str]) -> Vec<bool> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    let distinct: Vec<HashSet<&str>> = canonical.iter().map(|caption| words(caption).collect()).collect();
    for word in distinct.iter().flatten() {
        *uses.entry(word).or_default() += 1;
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&index| hash(keys[index]));

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

/// The split of whole concepts: subgroups of at most a tenth of the pairs together. `subgroups` names each
/// pair's, `variants` tells which pairs are skin-tone variants.
///
/// The subgroups are walked in the order of a hash of their name, and each that the tenth has room for is
/// held out. Those with skin tones stay in training, and so does the one that is larger than all others (the
/// flags of countries): each would fill most of the tenth with near twins.
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
    candidates.sort_by_key(|(subgroup, _)| hash(subgroup));

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

/// FNV-1a with a final mix (that of SplitMix64): the same on every machine and in every release of Rust.
fn hash(key: &str) -> u64 {
    let mut hash = key.bytes().fold(0xcbf2_9ce4_8422_2325 ^ SEED, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
