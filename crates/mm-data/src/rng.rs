//! Random numbers that follow from what they are for, not from what was drawn before.

use rand::{Rng, RngExt, SeedableRng};

use crate::SampleRng;

/// What numbers are drawn for, so that no two uses share them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Domain {
    /// The changes of a sample: augmentation, the choice of a caption.
    Sample,
    /// The order of an epoch's blocks.
    Blocks,
    /// The order within a window of blocks.
    Window,
    /// The order of a stream's shards.
    StreamShards,
    /// A stream's shuffle buffer.
    StreamBuffer,
    /// The samples of a contact sheet.
    Sheet,
}

/// The numbers for one purpose; they depend on nothing else.
pub(crate) fn rng(seed: u64, epoch: u64, number: u64, domain: Domain) -> SampleRng {
    let mut key = [0; 32];
    for (part, number) in key.chunks_exact_mut(8).zip([seed, epoch, number, domain as u64]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    SampleRng::from_seed(key)
}

/// Fisher and Yates's shuffle.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}
