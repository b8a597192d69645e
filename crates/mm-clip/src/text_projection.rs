//! The map from a text tower's output to the shared space.

use crate::{Error, Result};
use mm_core::Precision;
use mm_core::hf::check_sizes;
use mm_core::nn::{Activation, Linear};
use tch::Tensor;
use tch::nn::Path;

/// The sizes of the map from a text tower's output to the shared space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextProjection {
    /// The width between two linear layers with a GELU, without biases: open_clip's `hf_proj_type` `mlp`;
    /// none: the map is one linear layer.
    pub hidden_size: Option<i64>,
    /// The width of the shared space.
    pub output_size: i64,
}

impl TextProjection {
    /// One linear layer to `output_size` numbers.
    pub fn linear(output_size: i64) -> Self {
        Self { hidden_size: None, output_size }
    }
}

/// The layers of a [`TextProjection`]. Parameters are open_clip's: `weight`, or `0.weight` and `2.weight`
/// around the GELU.
#[derive(Debug)]
pub(crate) enum TextProjectionLayers {
    Linear(Linear),
    Mlp { hidden: Linear, output: Linear },
}

impl TextProjectionLayers {
    /// Creates the parameters below `path`, for an input of `width` numbers.
    ///
    /// # Errors
    /// A size is out of range.
    pub fn new(path: &Path, width: i64, sizes: TextProjection) -> Result<Self> {
        let TextProjection { hidden_size, output_size } = sizes;
        check_sizes(&[
            ("the width of the shared space", output_size),
            ("text_projection_hidden_size", hidden_size.unwrap_or(1)),
        ])
        .map_err(Error::Model)?;
        let linear =
            |path: &Path, from: i64, to| Linear::without_bias(path, from, to, (from as f64).powf(-0.5));
        Ok(match hidden_size {
            None => Self::Linear(linear(path, width, output_size)),
            Some(hidden_size) => Self::Mlp {
                hidden: linear(&(path / 0), width, hidden_size),
                output: linear(&(path / 2), hidden_size, output_size),
            },
        })
    }

    /// Maps `[B, W]` to `[B, D]`.
    pub fn forward(&self, pooled: &Tensor) -> Tensor {
        match self {
            Self::Linear(linear) => linear.forward(pooled),
            Self::Mlp { hidden, output } => {
                output.forward(&Activation::Gelu.forward(&hidden.forward(pooled)))
            }
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::Linear(linear) => linear.pack(precision),
            Self::Mlp { hidden, output } => {
                hidden.pack(precision);
                output.pack(precision);
            }
        }
    }
}
