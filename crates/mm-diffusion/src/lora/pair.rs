//! The two matrices of a LoRA.

use tch::{Kind, Tensor};

/// The two factors that are added to the weight of one layer.
#[derive(Debug)]
pub struct LoraPair {
    /// `[rank, in]`, or `[rank, in, h, w]` of a convolution.
    pub down: Tensor,
    /// `[out, rank]`, or `[out, rank, 1, 1]` of a convolution.
    pub up: Tensor,
    /// The scale times the rank; without it the scale is 1.
    pub alpha: Option<f64>,
}

impl LoraPair {
    /// The rank.
    pub fn rank(&self) -> i64 {
        self.down.size().first().copied().unwrap_or(0)
    }

    /// The factor of `up @ down`.
    pub fn scale(&self) -> f64 {
        self.alpha.map_or(1.0, |alpha| alpha / self.rank() as f64)
    }

    /// Whether this is of a convolution.
    pub fn is_convolution(&self) -> bool {
        self.down.dim() == 4
    }

    /// Checks that the pair is one and that it fits a weight of `shape`. A convolution of 1 x 1 and a linear
    /// layer fit each other.
    pub(super) fn check(&self, shape: &[i64]) -> Result<(), String> {
        let (down, up) = (self.down.size(), self.up.size());
        let is_weight = |shape: &[i64]| matches!(shape.len(), 2 | 4) && shape.iter().all(|&size| size > 0);
        if !is_weight(&down) || !is_weight(&up) || up[1] != down[0] || up[2..].iter().any(|&size| size != 1) {
            return Err(format!("down {down:?} and up {up:?} are no pair of a LoRA"));
        }
        if let Some(alpha) = self.alpha.filter(|alpha| !alpha.is_finite()) {
            return Err(format!("alpha is {alpha}"));
        }
        let product = [&up[..1], &down[1..]].concat();
        let significant = |shape: &[i64]| match shape {
            [out, input, 1, 1] => vec![*out, *input],
            shape => shape.to_vec(),
        };
        match significant(&product) == significant(shape) {
            true => Ok(()),
            false => {
                Err(format!("it is {product:?}, the model's {shape:?}: this is a LoRA for another model"))
            }
        }
    }

    /// `scale * up @ down` in f32, of the shape of the layer's weight.
    pub(super) fn delta(&self, shape: &[i64]) -> Result<Tensor, tch::TchError> {
        let matrix = |tensor: &Tensor| tensor.f_flatten(1, -1)?.f_to_kind(Kind::Float);
        // [out, rank] x [rank, in h w]
        matrix(&self.up)?.f_matmul(&matrix(&self.down)?)?.f_mul_scalar(self.scale())?.f_reshape(shape)
    }
}
