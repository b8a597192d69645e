//! The compositional split: what is held out is new as a whole, and known in each of its words.

use std::collections::{HashMap, HashSet};

use super::captions::words;

/// Changing this number makes another split, with which no earlier result can be compared.
const SEED: u64 = 0x6d6d_2d65_6d6f_6a69; // "mm-emoji"

/// Which of the pairs are held out: a tenth, rounded down. `keys` and `canonical` name and describe each pair.
///
/// The pairs are walked in the order of a hash of their key. One is held out when every word of its canonical caption
/// still stands in the canonical caption of another pair that remains in training; so `woman firefighter with medium
/// skin tone` can be held out, and `axolotl` cannot.
pub fn held_out(keys: &[&str], canonical: &[&str]) -> Vec<bool> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    let distinct: Vec<HashSet<&str>> = canonical.iter().map(|caption| words(caption).collect()).collect();
    for word in distinct.iter().flatten() {
        *uses.entry(word).or_default() += 1;
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&index| hash(keys[index]));

    let mut held = vec![false; keys.len()];
    let mut wanted = keys.len() / 10;
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

/// FNV-1a with a final mix (that of SplitMix64): the same on every machine and in every release of Rust.
fn hash(key: &str) -> u64 {
    let mut hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325 ^ SEED, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
