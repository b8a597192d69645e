//! Random numbers by purpose: they do not depend on earlier draws.

use rand::{Rng, RngExt, SeedableRng};

use crate::SampleRng;

/// The purpose of random numbers, so that no two uses share them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Domain {
    /// A sample: augmentation, the choice of a caption.
    Sample,
    /// The order of the blocks of an epoch.
    Blocks,
    /// The order within a window of blocks.
    Window,
    /// The order of the shards of a stream.
    StreamShards,
    /// The shuffle buffer of a stream.
    StreamBuffer,
    /// The samples of a contact sheet.
    Sheet,
    /// The order of the draws of a shuffled mix.
    Mix,
}

/// The random number generator of a purpose. It depends on the arguments alone.
pub(crate) fn rng(seed: u64, epoch: u64, number: u64, domain: Domain) -> SampleRng {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, epoch, number, domain as u64]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    SampleRng::from_seed(key)
}

/// Fisher-Yates shuffle.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}
