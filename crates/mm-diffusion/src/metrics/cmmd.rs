//! CMMD: the squared maximum mean discrepancy of CLIP embeddings with a Gaussian kernel (Jayasumana et al.
//! 2024, "Rethinking FID: towards a better evaluation metric for image generation").

use super::features::unit;
use super::pairs::{sum_between, sum_within};
use super::{Features, Result};
use tch::Tensor;

/// σ of the Gaussian.
pub const CMMD_SIGMA: f64 = 10.0;

/// The factor of the squared MMD.
pub const CMMD_SCALE: f64 = 1000.0;

/// `1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y))` with `k(x, y) = exp(-|x - y|² / 2σ²)` on rows
/// scaled to length 1. The means are over all pairs, those of a row with itself too, as in the paper's
/// program: the estimate is biased upwards by about `1000 (1 - mean k) / N` of each set, and never below 0
/// but for rounding.
///
/// # Errors
/// The widths differ.
pub fn cmmd(x: &Features, y: &Features) -> Result<f64> {
    x.check(y, 1, "CMMD")?;
    // k - 1, whose ones cancel in the difference of means: k itself is close to 1 on the sphere and would
    // lose digits. A row with itself gives 0.
    let kernel = |a: &Tensor, b: &Tensor| {
        let (a, b) = (unit(a)?, unit(b)?);
        // |a - b|² = 2 - 2 a·b.
        let half_squared = a.f_matmul(&b.f_transpose(0, 1)?)?.f_neg()?.f_add_scalar_(1.0)?;
        Ok(half_squared.f_mul_scalar(-1.0 / (CMMD_SIGMA * CMMD_SIGMA))?.f_expm1()?)
    };
    let (m, n) = (x.count() as f64, y.count() as f64);
    let within = sum_within(x, &kernel)? / (m * m) + sum_within(y, &kernel)? / (n * n);
    Ok(CMMD_SCALE * (within - 2.0 * sum_between(x, y, &kernel)? / (m * n)))
}
