//! Random choices from integers of fixed width: the same on every machine.

use rand::RngExt;

use crate::SampleRng;

/// A random element of a non-empty array.
pub fn one_of<T: Copy, const N: usize>(rng: &mut SampleRng, values: [T; N]) -> T {
    values[rng.random_range(0..N as u32) as usize]
}

/// A random element of a slice; `None` if it is empty.
pub fn pick<T: Copy>(rng: &mut SampleRng, values: &[T]) -> Option<T> {
    (!values.is_empty()).then(|| values[rng.random_range(0..values.len() as u32) as usize])
}

/// True or false with equal probability.
pub fn coin(rng: &mut SampleRng) -> bool {
    rng.random_range(0..2u32) == 0
}
