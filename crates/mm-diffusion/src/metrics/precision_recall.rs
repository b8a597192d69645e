//! Improved precision and recall (Kynkäänniemi et al. 2019, "Improved precision and recall metric for
//! assessing generative models").

use super::{Features, MetricsError, Result};
use tch::{Device, Kind, Tensor};

/// k in the paper's experiments.
pub const NEIGHBOURS: usize = 3;

/// What is subtracted from a squared distance in a comparison, relative to the squared lengths of both rows.
/// It is above the rounding of products in f64 and below that of features in f32, so that copies of one image
/// are at no distance.
const SLACK: f64 = 1e-13;

/// How much two sets cover each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// The share of the generated images that are within the reference set.
    pub precision: f64,
    /// The share of the reference images that are within the generated set.
    pub recall: f64,
}

/// Precision and recall. An image is within a set if its distance to at least one image of the set is at most
/// the distance of that image to its `neighbours`-th nearest other image of the set.
///
/// # Errors
/// The widths differ, `neighbours` is 0, or a set has no more images than `neighbours`.
pub fn precision_recall(
    reference: &Features,
    generated: &Features,
    neighbours: usize,
) -> Result<PrecisionRecall> {
    if neighbours == 0 {
        return Err(MetricsError::Features("precision and recall need at least 1 neighbour".to_owned()));
    }
    reference.check(generated, neighbours + 1, "precision and recall")?;
    mm_sys::inference_mode(|| {
        Ok(PrecisionRecall {
            precision: share_within(generated, reference, &radii(reference, neighbours as i64)?)?,
            recall: share_within(reference, generated, &radii(generated, neighbours as i64)?)?,
        })
    })
}

/// The squared distance of each row to its k-th nearest other row, `[N]`.
fn radii(set: &Features, k: i64) -> Result<Tensor> {
    let mut radii = Vec::new();
    for rows in set.blocks() {
        let rows = rows?;
        let mut nearest = Tensor::zeros([rows.rows.size()[0], 0], (Kind::Double, Device::Cpu));
        for others in set.blocks() {
            let others = others?;
            let mut distances = squared_distances(&rows.rows, &others.rows, 0.0)?;
            if rows.start == others.start {
                let _ = distances.f_fill_diagonal_(f64::INFINITY, false)?;
            }
            let known = Tensor::f_cat(&[nearest, distances], 1)?;
            nearest = known.f_topk(k.min(known.size()[1]), 1, false, false)?.0;
        }
        radii.push(nearest.f_amax([1i64].as_slice(), false)?);
    }
    Ok(Tensor::f_cat(&radii, 0)?)
}

/// The share of `queries` that are within the radius of at least one row of `set`.
fn share_within(queries: &Features, set: &Features, radii: &Tensor) -> Result<f64> {
    let mut within = 0;
    for rows in queries.blocks() {
        let rows = rows?.rows;
        let mut is_within = Tensor::zeros([rows.size()[0]], (Kind::Bool, Device::Cpu));
        for others in set.blocks() {
            let others = others?;
            let radii = radii.f_narrow(0, others.start, others.rows.size()[0])?;
            let distances = squared_distances(&rows, &others.rows, SLACK)?;
            is_within = is_within.f_logical_or(&distances.f_le_tensor(&radii)?.f_any_dim(1, false)?)?;
        }
        within += is_within.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    }
    Ok(within as f64 / queries.count() as f64)
}

/// `(1 - slack)(|a|² + |b|²) - 2 a·b` of all pairs of the rows of `a` `[A, D]` and `b` `[B, D]`, `[A, B]`,
/// and at least 0. The product of matrices is ten times as fast as the differences of all pairs.
fn squared_distances(a: &Tensor, b: &Tensor, slack: f64) -> Result<Tensor> {
    let lengths = |rows: &Tensor| rows.f_square()?.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
    let (a_lengths, b_lengths) = (lengths(a)?, lengths(b)?.f_transpose(0, 1)?);
    let lengths = a_lengths.f_add(&b_lengths)?.f_mul_scalar_(1.0 - slack)?;
    let mut products = a.f_matmul(&b.f_transpose(0, 1)?)?;
    Ok(lengths.f_sub(&products.f_mul_scalar_(2.0)?)?.f_clamp_min(0.0)?)
}
