//! Patch embedding.

use super::{Linear, parameter};
use crate::Precision;
use tch::Tensor;
use tch::nn::{Init, Path};

/// Splits an image into patches and maps each to a vector: a convolution whose stride is its kernel size
/// (Dosovitskiy et al. 2021, section 3.1), computed as one matrix product. `weight` is
/// `[width, 3, patch, patch]`, as in checkpoints.
#[derive(Debug)]
pub struct PatchEmbedding {
    weights: Weights,
    patch: i64,
}

#[derive(Debug)]
enum Weights {
    /// As in checkpoints. The view of `weight` is created at each use: one created before the weight is
    /// locked would still get gradients.
    Plain {
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Packed(Linear),
}

impl PatchEmbedding {
    /// Creates `weight` (normal, standard deviation `std`) and, with `bias`, `bias` (zero) below `path`.
    pub fn new(path: &Path, patch: i64, width: i64, bias: bool, std: f64) -> Self {
        let weight =
            parameter(path, "weight", &[width, 3, patch, patch], Init::Randn { mean: 0.0, stdev: std });
        let bias = bias.then(|| parameter(path, "bias", &[width], Init::Const(0.0)));
        Self { weights: Weights::Plain { weight, bias }, patch }
    }

    /// Maps `pixel_values` `[B, 3, H, W]` to `[B, N, width]`, N patches in rows from the top left. Pixels
    /// right of and below the last full patch are ignored, as by a convolution.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let (batch, channels, height, width) = pixel_values.size4().expect("pixel_values is [B, 3, H, W]");
        let (rows, columns, patch) = (height / self.patch, width / self.patch, self.patch);
        let patches = pixel_values
            .narrow(2, 0, rows * patch)
            .narrow(3, 0, columns * patch)
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5]) // [B, rows, columns, 3, patch, patch]
            .reshape([batch, rows * columns, channels * patch * patch]);
        match &self.weights {
            Weights::Plain { weight, bias } => patches.linear(&weight.flatten(1, 3), bias.as_ref()),
            Weights::Packed(projection) => projection.forward(&patches),
        } // [B, N, width]
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        if let Weights::Plain { weight, bias } = &self.weights {
            let mut projection =
                Linear::from_tensors(weight.flatten(1, 3), bias.as_ref().map(Tensor::shallow_clone));
            projection.pack(precision);
            self.weights = Weights::Packed(projection);
        }
    }
}
