//! From the image tower's vectors to the decoder's.

use super::config::ConnectorConfig;
use mm_core::Precision;
use mm_core::nn::{Linear, Mlp};
use tch::Tensor;
use tch::nn::Path;

/// Standard deviation of the initial weights.
const INIT_STD: f64 = 0.02;

/// The layers between image tower and decoder. Parameter names are those of transformers.
#[derive(Debug)]
pub enum Connector {
    /// See [`ConnectorConfig::PixelShuffle`].
    PixelShuffle {
        /// From the joined vectors to the decoder's width.
        projection: Linear,
        /// Patches along a side of what becomes one vector.
        scale_factor: i64,
    },
    /// See [`ConnectorConfig::Mlp`].
    Mlp(Mlp),
}

impl Connector {
    /// Creates the parameters below `path`, from vectors of width `input` to those of width `output`.
    pub fn new(path: &Path, config: &ConnectorConfig, input: i64, output: i64) -> Self {
        match *config {
            ConnectorConfig::PixelShuffle { scale_factor } => {
                let path = path / "modality_projection" / "proj";
                let inputs = input * scale_factor * scale_factor;
                let projection = Linear::without_bias(&path, inputs, output, INIT_STD);
                Self::PixelShuffle { projection, scale_factor }
            }
            ConnectorConfig::Mlp { activation, bias, .. } => {
                let linear = |name: &str, inputs| {
                    let new = if bias { Linear::new } else { Linear::without_bias };
                    new(&(path / name), inputs, output, INIT_STD)
                };
                let first = linear("linear_1", input);
                Self::Mlp(Mlp::new(first, linear("linear_2", output), activation))
            }
        }
    }

    /// Maps the tower's vectors `[T, N, input]`, of a square of patches with pixel shuffle, to `[T, tokens,
    /// output]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::PixelShuffle { projection, scale_factor } => {
                projection.forward(&pixel_shuffle(x, *scale_factor))
            }
            Self::Mlp(mlp) => mlp.forward(x),
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::PixelShuffle { projection, .. } => projection.pack(precision),
            Self::Mlp(mlp) => mlp.pack(precision),
        }
    }
}

/// Joins each square of `scale` x `scale` vectors of `x` `[T, side^2, D]`, row by row, to one vector:
/// `[T, (side / scale)^2, scale^2 D]`.
fn pixel_shuffle(x: &Tensor, scale: i64) -> Tensor {
    let (tiles, count, width) = x.size3().expect("tokens are [T, N, D]");
    let squares = ((count as f64).sqrt().round() as i64) / scale;
    x.reshape([tiles, squares, scale, squares, scale, width])
        .permute([0, 1, 3, 2, 4, 5]) // [T, rows, columns, scale, scale, D]
        .reshape([tiles, squares * squares, scale * scale * width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn each_square_of_patches_becomes_one_vector_row_by_row() {
        let x = Tensor::arange(16, (Kind::Int64, Device::Cpu)).view([1, 16, 1]);
        let shuffled = pixel_shuffle(&x, 2);
        let expected = [[0i64, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]];
        assert_eq!(shuffled, Tensor::from_slice2(&expected).unsqueeze(0));
        assert_eq!(pixel_shuffle(&x, 1), x);
    }
}
