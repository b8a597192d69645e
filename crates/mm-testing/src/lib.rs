//! Helpers for the tests of several crates, a dev-dependency only.
//!
//! Tests run in parallel in one process, libtorch has one generator a process, and processors round
//! differently. So
//!
//! - inputs are drawn with [`normal`], [`uniform`] and [`integers`], whose numbers depend on the seed only;
//!   [`initialize`] does the same for the parameters of a model. `tch::manual_seed` is for tests of
//!   libtorch's own generator, which share a lock;
//! - results are compared with [`assert_close`], with the rounding of the summed terms as tolerance. Bits are
//!   compared only between two computations on one machine, and counts of iterations within a range.
//!
//! ```
//! use mm_testing::{assert_close, normal};
//! use tch::Kind;
//!
//! let x = normal(1, &[3, 1000]);
//! let found = x.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
//! let expected = x.to_kind(Kind::Double).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
//! let terms = x.abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
//! assert_close("the sum", &found, &expected, &terms);
//! ```

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;
use std::ops::Range;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Roundings of f32 that [`assert_close`] allows: terms are rounded products, and are added in another order.
const ROUNDINGS: f64 = 8.0;

/// A tensor of f32 from the standard normal distribution.
pub fn normal(seed: u64, shape: &[i64]) -> Tensor {
    filled(seed, shape, standard_normal)
}

/// A tensor of f32 from 0 (included) to 1 (excluded).
pub fn uniform(seed: u64, shape: &[i64]) -> Tensor {
    filled(seed, shape, |rng| f64::from(rng.random::<f32>()))
}

/// A tensor of i64 within `range`.
pub fn integers(seed: u64, range: Range<i64>, shape: &[i64]) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<i64> = (0..count(shape)).map(|_| rng.random_range(range.clone())).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Draws the randomly initialized parameters of a model again, from `seed` only. Matrices get a standard
/// deviation of 1 / sqrt(inputs), vectors of 0.02; constants, such as the weights of norms, stay.
pub fn initialize(vs: &VarStore, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut variables: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    variables.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, mut variable) in variables {
        if variable.numel() < 2 || variable.min() == variable.max() {
            continue;
        }
        let shape = variable.size();
        let std = if shape.len() < 2 { 0.02 } else { (count(&shape[1..]) as f64).sqrt().recip() };
        let values = filled_by(&mut rng, &shape, |rng| std * standard_normal(rng));
        tch::no_grad(|| variable.copy_(&values));
    }
}

/// Asserts that `found` equals `expected` within the rounding of f32. `terms`, of a shape that broadcasts to
/// theirs, is the magnitude of the terms of each element: of a sum, which may cancel, the sum of absolute
/// values.
///
/// # Panics
/// An element differs by more or is NaN, or the shapes differ.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, terms: &Tensor) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let off = (found.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs();
    let roundings = off / (terms.to_kind(Kind::Double) * f64::from(f32::EPSILON) + f64::MIN_POSITIVE);
    if roundings.numel() > 0 {
        let most = roundings.max().double_value(&[]);
        assert!(
            most <= ROUNDINGS,
            "{what} is off by {most} roundings of its terms: {found:?} is not {expected:?}"
        );
    }
}

fn count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}

fn filled(seed: u64, shape: &[i64], draw: impl FnMut(&mut ChaCha8Rng) -> f64) -> Tensor {
    filled_by(&mut ChaCha8Rng::seed_from_u64(seed), shape, draw)
}

fn filled_by(rng: &mut ChaCha8Rng, shape: &[i64], mut draw: impl FnMut(&mut ChaCha8Rng) -> f64) -> Tensor {
    let values: Vec<f32> = (0..count(shape)).map(|_| draw(rng) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// A number by the Box-Muller transform (1958).
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;
    use tch::nn::Init;

    const DRAWN: Init = Init::Randn { mean: 0.0, stdev: 1.0 };

    /// Draws 10,000 numbers and checks their mean and variance.
    fn check(draw: impl Fn(u64) -> Tensor, mean: f64, variance: f64) {
        let (x, again, other) = (draw(1), draw(1), draw(2));
        assert!(x == again && x != other);
        let x = x.to_kind(Kind::Double);
        assert!((x.mean(Kind::Double).double_value(&[]) - mean).abs() < 0.05 * variance.sqrt());
        assert!((x.var(true).double_value(&[]) / variance - 1.0).abs() < 0.05);
    }

    #[test]
    fn numbers_depend_on_the_seed_alone_and_have_their_distribution() {
        check(|seed| normal(seed, &[100, 100]), 0.0, 1.0);
        check(|seed| uniform(seed, &[100, 100]), 0.5, 1.0 / 12.0);
        check(|seed| integers(seed, -4..5, &[100, 100]), 0.0, 80.0 / 12.0);
        assert!(uniform(1, &[10_000]).max().double_value(&[]) < 1.0);
    }

    #[test]
    fn random_parameters_are_drawn_again_and_constants_stay() {
        let make = |seed| {
            let vs = VarStore::new(Device::Cpu);
            let matrix = vs.root().var("matrix", &[64, 25], DRAWN);
            let vector = vs.root().var("vector", &[5], DRAWN);
            let norm = vs.root().var("norm", &[5], Init::Const(1.0));
            initialize(&vs, seed);
            [matrix, vector, norm]
        };
        let (one, again, other) = (make(1), make(1), make(2));
        assert_eq!(one, again);
        assert!(one[0] != other[0] && one[1] != other[1] && one[2] == other[2]);
        assert!((one[0].std(true).double_value(&[]) / 0.2 - 1.0).abs() < 0.1);
        assert!(one[0].requires_grad());
    }

    #[test]
    fn a_sum_that_cancels_is_compared_by_its_terms() {
        let compare = |found: f32| {
            let [found, zero, terms] = [found, 0.0, 2000.0].map(Tensor::from);
            std::panic::catch_unwind(|| assert_close("zero", &found, &zero, &terms))
        };
        assert!(compare(1.5e-3).is_ok() && compare(3e-3).is_err() && compare(f32::NAN).is_err());
    }
}
