//! Embeddings of timesteps and of other numbers.

use mm_core::Precision;
use mm_core::nn::Linear;
use tch::nn::Path;
use tch::{Kind, Tensor};

/// Sinusoids of `numbers` `[N]` (Vaswani et al. 2017, section 3.5), in f32: `[N, width]`, sines before
/// cosines, or after them with `cosines_first`. Frequencies fall from 1 to 1/10,000 over `width / 2 - shift`
/// steps.
pub(crate) fn sinusoid(numbers: &Tensor, width: i64, cosines_first: bool, shift: f64) -> Tensor {
    let half = width / 2;
    let exponents = Tensor::arange(half, (Kind::Float, numbers.device())) * -(10_000f64.ln());
    let frequencies = (exponents / (half as f64 - shift)).exp();
    let angles = numbers.to_kind(Kind::Float).unsqueeze(-1) * frequencies; // [N, half]
    let (sines, cosines) = (angles.sin(), angles.cos());
    let halves = if cosines_first { [cosines, sines] } else { [sines, cosines] };
    Tensor::cat(&halves, -1).constant_pad_nd([0, width % 2])
}

/// The standard deviation of initial weights from `input` to `output` values.
pub(crate) type InitStd = fn(input: i64, output: i64) -> f64;

/// Two linear layers with SiLU between them: `linear_1`, `linear_2`.
#[derive(Debug)]
pub(crate) struct SiluMlp {
    linear_1: Linear,
    linear_2: Linear,
}

impl SiluMlp {
    pub(crate) fn new(path: &Path, input: i64, width: i64, std: InitStd) -> Self {
        Self {
            linear_1: Linear::new(&(path / "linear_1"), input, width, std(input, width)),
            linear_2: Linear::new(&(path / "linear_2"), width, width, std(width, width)),
        }
    }

    /// Maps `x` `[B, input]` to `[B, width]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.linear_2.forward(&self.linear_1.forward(x).silu())
    }

    /// Prepares for inference in `precision`.
    pub(crate) fn pack(&mut self, precision: Precision) {
        self.linear_1.pack(precision);
        self.linear_2.pack(precision);
    }
}

/// The embedding of timesteps in a U-Net: a [`SiluMlp`], with the embedded guidance scale of a distilled
/// model added to its input.
#[derive(Debug)]
pub(crate) struct TimeEmbedding {
    cond_proj: Option<Linear>,
    mlp: SiluMlp,
}

impl TimeEmbedding {
    /// Maps `input` numbers to `width`; `cond_width` is that of an added condition.
    pub(crate) fn new(path: &Path, input: i64, width: i64, cond_width: Option<i64>) -> Self {
        let std: InitStd = |input, _| (input as f64).powf(-0.5);
        let cond_proj = |cond| Linear::without_bias(&(path / "cond_proj"), cond, input, std(cond, input));
        Self { cond_proj: cond_width.map(cond_proj), mlp: SiluMlp::new(path, input, width, std) }
    }

    /// Maps `x` `[B, input]` to `[B, width]`.
    pub(crate) fn forward(&self, x: &Tensor, condition: Option<&Tensor>) -> Tensor {
        match (&self.cond_proj, condition) {
            (Some(cond_proj), Some(condition)) => self.mlp.forward(&(x + cond_proj.forward(condition))),
            _ => self.mlp.forward(x),
        }
    }

    /// Prepares for inference in `precision`.
    pub(crate) fn pack(&mut self, precision: Precision) {
        self.cond_proj.iter_mut().for_each(|layer| layer.pack(precision));
        self.mlp.pack(precision);
    }
}
