//! Random choices, from numbers of fixed width: the same on every machine.

use rand::RngExt;

use crate::SampleRng;

/// One of a fixed, non-empty list.
pub fn one_of<T: Copy, const N: usize>(rng: &mut SampleRng, values: [T; N]) -> T {
    values[rng.random_range(0..N as u32) as usize]
}

/// One of a list; none of an empty one.
pub fn pick<T: Copy>(rng: &mut SampleRng, values: &[T]) -> Option<T> {
    (!values.is_empty()).then(|| values[rng.random_range(0..values.len() as u32) as usize])
}

/// Heads or tails.
pub fn coin(rng: &mut SampleRng) -> bool {
    rng.random_range(0..2u32) == 0
}
