//! Random seeds derived from the place of use, independent of what ran before.
//!
//! A run has one seed. The random numbers of step n come from `derive(seed, "step", n)`, so that a resumed
//! run draws the same numbers as an uninterrupted one, without stored generator states.

/// A seed for the `index`-th use of `purpose` under the run's `seed`. Uses with different purposes or indices
/// are independent.
pub fn derive(seed: u64, purpose: &str, index: u64) -> u64 {
    let mut state = mix(seed);
    for &byte in purpose.as_bytes() {
        state = mix(state ^ u64::from(byte));
    }
    mix(state ^ index)
}

/// Seeds libtorch's generators for the `index`-th use of `purpose` under the run's `seed`.
pub fn set(seed: u64, purpose: &str, index: u64) {
    // libtorch takes the same 64 bits as a signed number.
    tch::manual_seed(derive(seed, purpose, index) as i64);
}

/// SplitMix64's step and finalizer (Steele et al. 2014, "Fast splittable pseudorandom number generators").
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_depend_on_seed_purpose_and_index() {
        let base = derive(1, "step", 1);
        assert_eq!(base, derive(1, "step", 1));
        assert!(
            [derive(2, "step", 1), derive(1, "init", 1), derive(1, "step", 2)]
                .iter()
                .all(|&other| other != base)
        );
    }
}
