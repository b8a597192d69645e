//! A set's features, read in blocks.

use super::{MetricsError, Result};
use tch::{Device, Kind, Tensor};

/// Rows of a block: a block of pairs has 8 MB.
const BLOCK: i64 = 1024;

/// The features of a set of images, a row each; all are finite.
#[derive(Debug)]
pub struct Features {
    rows: Tensor,
    count: i64,
    width: i64,
}

impl Features {
    /// The features in the rows of `rows` `[N, D]`, of any floating type.
    ///
    /// # Errors
    /// `rows` is not a matrix with at least one row and one column, or has a number that is not finite.
    pub fn new(rows: &Tensor) -> Result<Self> {
        let size = rows.size();
        let (count, width) = match size[..] {
            [count, width] if count > 0 && width > 0 => (count, width),
            _ => {
                return Err(MetricsError::Features(format!("features of shape {size:?}: it must be [N, D]")));
            }
        };
        let features = Self { rows: rows.detach().to_device(Device::Cpu), count, width };
        for block in features.blocks() {
            let block = block?;
            let sum = block.rows.f_sum(Kind::Double)?.f_double_value(&[])?;
            if !sum.is_finite() {
                let last = block.start + block.rows.size()[0] - 1;
                return Err(MetricsError::Features(format!(
                    "a feature of the rows {} to {last} is not finite",
                    block.start
                )));
            }
        }
        Ok(features)
    }

    /// N, the number of images.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// D, the number of features of an image.
    pub fn width(&self) -> usize {
        self.width as usize
    }

    /// The rows scaled to length 1, f32 `[N, D]`.
    pub(super) fn unit_rows(&self) -> Result<Tensor> {
        let blocks = self.blocks().map(|block| Ok(unit(&block?.rows)?.f_to_kind(Kind::Float)?));
        Ok(Tensor::f_cat(&blocks.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// The features of these images.
    pub(super) fn select(&self, indices: &[i64]) -> Result<Self> {
        let rows = self.rows.f_index_select(0, &Tensor::from_slice(indices))?;
        Ok(Self { rows, count: indices.len() as i64, width: self.width })
    }

    /// The rows in order, in blocks of f64.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Result<Block>> {
        let starts = (0..self.count).step_by(BLOCK as usize);
        starts.map(|start| {
            let rows = self.rows.f_narrow(0, start, BLOCK.min(self.count - start))?;
            Ok(Block { start, rows: rows.f_to_kind(Kind::Double)? })
        })
    }

    /// Checks that both sets are of one width, and have `least` images each.
    pub(super) fn check(&self, other: &Self, least: usize, metric: &str) -> Result<()> {
        if self.width != other.width {
            return Err(MetricsError::Features(format!(
                "{metric} of sets with {} and {} features: both must be of one tower",
                self.width, other.width
            )));
        }
        let fewest = self.count().min(other.count());
        if fewest < least {
            let problem = format!("{metric} needs at least {least} images in each set, one has {fewest}");
            return Err(MetricsError::Features(problem));
        }
        Ok(())
    }
}

/// Some rows of a set.
pub(super) struct Block {
    /// The number of the first.
    pub(super) start: i64,
    /// `[B, D]` f64.
    pub(super) rows: Tensor,
}

/// The rows scaled to length 1.
pub(super) fn unit(rows: &Tensor) -> Result<Tensor> {
    let norms = rows.f_norm_scalaropt_dim(2.0, [-1i64].as_slice(), true)?;
    Ok(rows.f_div(&norms.f_clamp_min(1e-12)?)?)
}
