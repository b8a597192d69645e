//! FID: the Fréchet distance between two Gaussians fitted to features (Heusel et al. 2017, "GANs trained by a
//! two time-scale update rule converge to a local Nash equilibrium").

use super::{Features, MetricsError, Result};
use tch::{Kind, Tensor};

/// The Gaussian of a set's features.
#[derive(Debug)]
pub struct FeatureStatistics {
    /// The mean, `[D]` f64.
    mean: Tensor,
    /// The covariance with the divisor N - 1, `[D, D]` f64.
    covariance: Tensor,
}

impl FeatureStatistics {
    /// Mean and covariance of `features`.
    ///
    /// # Errors
    /// There is one image only.
    pub fn new(features: &Features) -> Result<Self> {
        features.check(features, 2, "a covariance")?;
        mm_sys::inference_mode(|| {
            let (count, width) = (features.count() as f64, features.width() as i64);
            let options = (Kind::Double, tch::Device::Cpu);
            let (mut sum, mut squares) =
                (Tensor::zeros([width], options), Tensor::zeros([width, width], options));
            for block in features.blocks() {
                sum += block?.rows.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?;
            }
            let mean = sum / count;
            // Centred first: the difference of two large sums would lose the digits of a small variance.
            for block in features.blocks() {
                let centred = block?.rows.f_sub(&mean)?;
                squares += centred.f_transpose(0, 1)?.f_matmul(&centred)?;
            }
            Ok(Self { mean, covariance: squares / (count - 1.0) })
        })
    }

    /// A factor A `[D, r]` of the covariance A Aᵀ, r its rank. Eigenvalues within the rounding of the largest
    /// are 0: a square root would turn a rounding of 1e-16 into one of 1e-8.
    fn factor(&self) -> Result<Tensor> {
        let (values, vectors) = self.covariance.f_linalg_eigh("L")?;
        let width = values.size()[0];
        let largest = values.f_max()?.f_double_value(&[])?;
        let rounding = largest.max(0.0) * f64::EPSILON * width as f64;
        let rank = values.f_gt(rounding)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        // They are in ascending order.
        let values = values.f_narrow(0, width - rank, rank)?;
        Ok(vectors.f_narrow(1, width - rank, rank)?.f_mul(&values.f_sqrt()?)?)
    }
}

/// The Fréchet distance `|m₁ - m₂|² + tr C₁ + tr C₂ - 2 tr (C₁ C₂)^½` of two Gaussians; never below 0.
///
/// With factors Cᵢ = Aᵢ Aᵢᵀ by eigendecomposition, the trace of the root is the sum of the singular values of
/// A₁ᵀ A₂. No root of the product is formed, which has no real one in floating point where a covariance is
/// singular, as of fewer images than features.
///
/// # Errors
/// The widths differ, or libtorch's decomposition does not converge.
pub fn frechet_distance(a: &FeatureStatistics, b: &FeatureStatistics) -> Result<f64> {
    if a.mean.size() != b.mean.size() {
        let (a, b) = (a.mean.size(), b.mean.size());
        return Err(MetricsError::Features(format!(
            "FID of sets with {a:?} and {b:?} features: both must be of one tower"
        )));
    }
    mm_sys::inference_mode(|| {
        let difference = a.mean.f_sub(&b.mean)?;
        let between_means = difference.f_dot(&difference)?.f_double_value(&[])?;
        let traces =
            a.covariance.f_trace()?.f_double_value(&[])? + b.covariance.f_trace()?.f_double_value(&[])?;
        let product = a.factor()?.f_transpose(0, 1)?.f_matmul(&b.factor()?)?;
        let root = match product.numel() {
            0 => 0.0,
            _ => product.f_svd(true, false)?.1.f_sum(Kind::Double)?.f_double_value(&[])?,
        };
        Ok((between_means + traces - 2.0 * root).max(0.0))
    })
}
