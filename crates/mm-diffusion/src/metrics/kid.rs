//! KID: the squared maximum mean discrepancy with a polynomial kernel (Binkowski et al. 2018, "Demystifying
//! MMD GANs").

use super::pairs::{sum_between, sum_within};
use super::{Features, MetricsError, Result};
use mm_data::SampleRng;
use rand::SeedableRng;
use rand::seq::index::sample;
use tch::Tensor;

/// The exponent of the kernel.
const DEGREE: f64 = 3.0;

/// The subsets of KID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KidOptions {
    /// How many are drawn.
    pub subsets: usize,
    /// Images of each; of a smaller set all images.
    pub subset_size: usize,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for KidOptions {
    /// 100 subsets of 1000 images.
    fn default() -> Self {
        Self { subsets: 100, subset_size: 1000, seed: 0 }
    }
}

/// KID over subsets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kid {
    /// The mean over the subsets.
    pub mean: f64,
    /// The standard deviation over the subsets, with the divisor S.
    pub std: f64,
}

/// Mean and deviation of [`unbiased_mmd`] over random subsets, drawn without replacement from both sets. This
/// is the KID of published programs: the mean is an unbiased estimate, and the deviation shows the noise of
/// one subset.
///
/// # Errors
/// The widths differ, a set has one image only, or the options have no subset or fewer than 2 images in it.
pub fn kid(x: &Features, y: &Features, options: &KidOptions) -> Result<Kid> {
    let KidOptions { subsets, subset_size, seed } = *options;
    if subsets == 0 || subset_size < 2 {
        return Err(MetricsError::Features(format!(
            "KID of {subsets} subsets of {subset_size} images: it needs at least 1 of at least 2"
        )));
    }
    x.check(y, 2, "KID")?;
    let size = subset_size.min(x.count()).min(y.count());
    let mut rng = SampleRng::seed_from_u64(seed);
    let mut draw = |from: &Features| -> Vec<i64> {
        sample(&mut rng, from.count(), size).into_iter().map(|index| index as i64).collect()
    };
    let drawn: Vec<[Vec<i64>; 2]> = (0..subsets).map(|_| [draw(x), draw(y)]).collect();
    kid_of_subsets(x, y, &drawn)
}

/// [`kid`] over given subsets: rows of `x` and rows of `y` for each.
///
/// # Errors
/// As [`kid`], or a row is out of range.
pub fn kid_of_subsets(x: &Features, y: &Features, subsets: &[[Vec<i64>; 2]]) -> Result<Kid> {
    if subsets.is_empty() {
        return Err(MetricsError::Features("KID needs at least one subset".to_owned()));
    }
    let values = subsets.iter().map(|[of_x, of_y]| unbiased_mmd(&x.select(of_x)?, &y.select(of_y)?));
    let values = values.collect::<Result<Vec<_>>>()?;
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    Ok(Kid { mean, std: variance.sqrt() })
}

/// The unbiased estimate of the squared MMD with the kernel `(x·y / D + 1)³` from all pairs:
/// `mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`, of which the first two leave out the pairs of a row with
/// itself. It can be below 0.
///
/// # Errors
/// The widths differ, or a set has one image only.
pub fn unbiased_mmd(x: &Features, y: &Features) -> Result<f64> {
    x.check(y, 2, "KID")?;
    let width = x.width() as f64;
    let kernel = |a: &Tensor, b: &Tensor| {
        let mut products = a.f_matmul(&b.f_transpose(0, 1)?)?;
        Ok(products.f_div_scalar_(width)?.f_add_scalar_(1.0)?.f_pow_tensor_scalar(DEGREE)?)
    };
    let (m, n) = (x.count() as f64, y.count() as f64);
    let within = sum_within(x, &kernel)? / (m * (m - 1.0)) + sum_within(y, &kernel)? / (n * (n - 1.0));
    Ok(within - 2.0 * sum_between(x, y, &kernel)? / (m * n))
}
