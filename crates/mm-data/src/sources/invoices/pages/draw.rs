//! Random choices from integers of fixed width: the same on every machine.

use rand::RngExt;

use crate::SampleRng;

/// A random number below `end`, which is at least 1.
pub(super) fn below(rng: &mut SampleRng, end: u32) -> u32 {
    rng.random_range(0..end.max(1))
}

/// A random number from `first` to `last`.
pub(super) fn between(rng: &mut SampleRng, first: u32, last: u32) -> u32 {
    rng.random_range(first..=last.max(first))
}

/// A random number from -1 to 1, a multiple of a thousandth.
pub(super) fn signed(rng: &mut SampleRng) -> f32 {
    (between(rng, 0, 2000) as f32 - 1000.0) / 1000.0
}

/// True with a probability of `percent`.
pub(super) fn chance(rng: &mut SampleRng, percent: u32) -> bool {
    below(rng, 100) < percent
}

/// A random element of a slice that is not empty.
pub(super) fn pick<'a, T>(rng: &mut SampleRng, values: &'a [T]) -> &'a T {
    &values[below(rng, values.len() as u32) as usize]
}

/// A text of random digits for each `0`, and of random letters for each `A`, of a pattern.
pub(super) fn patterned(rng: &mut SampleRng, pattern: &str) -> String {
    let mut random = |symbol| match symbol {
        '0' => char::from(b'0' + below(rng, 10) as u8),
        '9' => char::from(b'1' + below(rng, 9) as u8),
        'A' => char::from(b'A' + below(rng, 26) as u8),
        other => other,
    };
    pattern.chars().map(&mut random).collect()
}
