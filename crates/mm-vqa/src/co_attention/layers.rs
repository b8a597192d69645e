//! Layers that the fusions share.

use mm_core::Precision;
use mm_core::nn::Linear;
use tch::nn::Path;
use tch::{Kind, Tensor};

/// Standard deviation of PyTorch's initial weights of a linear layer with `inputs`.
pub(super) fn linear_std(inputs: i64) -> f64 {
    (3.0 * inputs as f64).powf(-0.5)
}

/// A linear layer with initial weights of PyTorch's standard deviation.
pub(super) fn linear(path: &Path, name: &str, input: i64, output: i64) -> Linear {
    Linear::new(&(path / name), input, output, linear_std(input))
}

/// As [`linear`], without a bias.
pub(super) fn linear_without_bias(path: &Path, name: &str, input: i64, output: i64) -> Linear {
    Linear::without_bias(&(path / name), input, output, linear_std(input))
}

/// Gated tanh, `tanh(W x + b) * sigmoid(W' x + b')` (Teney et al. 2018, section 3.7). Both matrices are one,
/// `[2 out, in]`, rows of `W` first.
#[derive(Debug)]
pub(super) struct GatedTanh(Linear);

impl GatedTanh {
    pub(super) fn new(path: &Path, name: &str, input: i64, output: i64) -> Self {
        Self(linear(path, name, input, 2 * output))
    }

    /// Maps `x` `[..., in]` to `[..., out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        gated_tanh(&self.0.forward(x))
    }

    pub(super) fn pack(&mut self, precision: Precision) {
        self.0.pack(precision);
    }
}

/// The activation of [`GatedTanh`], from `[..., 2 out]` to `[..., out]`.
pub(super) fn gated_tanh(x: &Tensor) -> Tensor {
    let parts = x.chunk(2, -1);
    parts[0].tanh() * parts[1].sigmoid()
}

/// The weights `[Q, glimpses, S]` of `scores` `[Q, S, glimpses]`, zero where `mask` `[Q, S]` is 0. They are
/// summed in f32.
pub(super) fn attention_weights(scores: &Tensor, mask: Option<&Tensor>) -> Tensor {
    let scores32 = scores.to_kind(Kind::Float).transpose(1, 2);
    let masked = match mask {
        Some(mask) => scores32.masked_fill(&mask.eq(0).unsqueeze(1), f64::NEG_INFINITY),
        None => scores32,
    };
    masked.softmax(-1, None).to_kind(scores.kind())
}

/// The sums `[Q, glimpses * D]` of `states` `[Q, S, D]` by `weights` `[Q, glimpses, S]`.
pub(super) fn weighted_sums(weights: &Tensor, states: &Tensor) -> Tensor {
    weights.to_kind(states.kind()).matmul(states).flatten(1, 2)
}
