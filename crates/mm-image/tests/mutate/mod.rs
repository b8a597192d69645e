//! Random damage to the bytes of a file, also used by the tests of mm-data.

use rand::{Rng, RngExt};

/// The bytes cut off, with a piece taken out or put elsewhere, or with bytes and bits changed.
pub fn mutated(bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match rng.random_range(0..6) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => {
            let piece = piece(&bytes, rng);
            bytes.drain(piece);
        }
        2 => {
            let piece = bytes[piece(&bytes, rng)].to_vec();
            let at = rng.random_range(0..bytes.len());
            bytes.splice(at..at, piece);
        }
        // The head of an image, and the end of a Parquet file, hold sizes, tables and lengths: most of what
        // can go wrong.
        3 => (0..4).for_each(|_| {
            let at = rng.random_range(0..bytes.len().min(700));
            bytes[at] = rng.random();
        }),
        4 => (0..rng.random_range(1..5)).for_each(|_| {
            let at = rng.random_range(bytes.len().saturating_sub(700)..bytes.len());
            bytes[at] = rng.random();
        }),
        _ => (0..rng.random_range(1..20)).for_each(|_| {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }),
    }
    bytes
}

/// A range of up to 64 bytes.
fn piece(bytes: &[u8], rng: &mut impl Rng) -> std::ops::Range<usize> {
    let from = rng.random_range(0..bytes.len());
    from..rng.random_range(from..bytes.len().min(from + 64) + 1).min(bytes.len())
}
