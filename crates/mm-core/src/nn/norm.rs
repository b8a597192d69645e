//! Normalization and embeddings.

use super::parameter;
use crate::Precision;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// Layer normalization over the last dimension (Ba et al. 2016), with `weight` and `bias` `[width]`.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Creates `weight` (one) and `bias` (zero) below `path`.
    pub fn new(path: &Path, width: i64, eps: f64) -> Self {
        let weight = parameter(path, "weight", &[width], Init::Const(1.0));
        let bias = parameter(path, "bias", &[width], Init::Const(0.0));
        Self { weight, bias, eps }
    }

    /// Normalizes `x` `[..., width]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.weight = self.weight.detach().to_kind(precision.kind());
        self.bias = self.bias.detach().to_kind(precision.kind());
    }
}

/// Root-mean-square normalization over the last dimension (Zhang & Sennrich 2019).
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    /// Of a packed norm, in f32.
    packed: Option<PackedRmsNorm>,
    /// Norms in one pass.
    count: i64,
    width: i64,
    eps: f64,
}

impl RmsNorm {
    /// Creates `weight` `[width]` (one) below `path`.
    pub fn new(path: &Path, width: i64, eps: f64) -> Self {
        Self::stacked(path, 1, width, eps)
    }

    /// `count` norms in one pass, as of the queries and the keys of one projection: `weight` `[count *
    /// width]` has the weights of one after another, and [`RmsNorm::forward`] takes `[..., count, heads,
    /// width]`.
    pub fn stacked(path: &Path, count: i64, width: i64, eps: f64) -> Self {
        let weight = parameter(path, "weight", &[count * width], Init::Const(1.0));
        Self { weight, packed: None, count, width, eps }
    }

    /// Normalizes `x` `[..., width]` and keeps its type.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if let Some(packed) = &self.packed {
            return packed.forward(x);
        }
        let normalized = x.rms_norm([self.width], None::<&Tensor>, self.eps);
        let weight = match self.count {
            1 => self.weight.shallow_clone(),
            count => self.weight.view([count, 1, self.width]),
        };
        (normalized * weight).to_kind(x.kind())
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        if self.count == 1 {
            self.packed = Some(PackedRmsNorm::new(&self.weight, self.width, self.eps));
        }
        self.weight = self.weight.detach().to_kind(precision.kind());
    }
}

/// The norm of a block.
#[derive(Debug)]
pub enum Norm {
    /// Layer normalization.
    Layer(LayerNorm),
    /// Root-mean-square normalization.
    Rms(RmsNorm),
}

impl Norm {
    /// Normalizes `x` `[..., width]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::Layer(norm) => norm.pack(precision),
            Self::Rms(norm) => norm.pack(precision),
        }
    }
}

/// A root-mean-square norm for inference. libtorch has no kernel for it on a CPU and takes eight operations,
/// of which each counts where one token is decoded at a time; this takes five.
#[derive(Debug)]
struct PackedRmsNorm {
    /// The weight times the root of the width, f32.
    weight: Tensor,
    /// Epsilon times the width, `[1]`, f32.
    eps: Tensor,
}

impl PackedRmsNorm {
    fn new(weight: &Tensor, width: i64, eps: f64) -> Self {
        let weight = weight.detach().to_kind(Kind::Float);
        let eps = Tensor::full([1], eps * width as f64, (Kind::Float, weight.device()));
        Self { weight: weight * (width as f64).sqrt(), eps }
    }

    /// Normalizes `x` `[..., width]` and keeps its type: `x w / sqrt(mean(x^2) + eps)`, with numerator and
    /// denominator multiplied by the root of the width.
    fn forward(&self, x: &Tensor) -> Tensor {
        let exact = x.to_kind(Kind::Float);
        let norm = exact.norm_scalaropt_dim(2, [-1i64], true); // [..., 1]
        let mut y = exact * self.eps.addcmul(&norm, &norm).rsqrt_();
        y.g_mul_(&self.weight).to_kind(x.kind())
    }
}

/// A table of vectors, `weight` `[rows, width]`.
#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// Creates `weight` (normal, standard deviation `std`) below `path`.
    pub fn new(path: &Path, rows: i64, width: i64, std: f64) -> Self {
        Self { weight: parameter(path, "weight", &[rows, width], Init::Randn { mean: 0.0, stdev: std }) }
    }

    /// Looks up `ids` `[...]` (i64) and gives `[..., width]`. An id outside the table is an error of
    /// libtorch; tokenizers and tables are compared when a model is loaded.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight, ids, -1, false, false)
    }

    /// The first `rows` rows, `[rows, width]`, for position tables.
    pub fn first(&self, rows: i64) -> Tensor {
        self.weight.narrow(0, 0, rows)
    }

    /// The table, `[rows, width]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.weight = self.weight.detach().to_kind(precision.kind());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;
    use tch::Device;
    use tch::nn::VarStore;

    #[test]
    fn a_packed_norm_equals_its_definition_in_every_precision() {
        let (width, eps) = (40, 1e-2);
        let x = normal(2, &[3, 4, width]) * 0.1;
        let weight = normal(1, &[width]);
        let mean = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
        let expected = &x / (mean + eps).sqrt() * &weight;
        for (precision, bound) in [(Precision::F32, 1e-6), (Precision::Bf16, 0.005), (Precision::Int8, 1e-6)]
        {
            let vs = VarStore::new(Device::Cpu);
            let mut norm = RmsNorm::new(&vs.root(), width, eps);
            tch::no_grad(|| vs.variables()["weight"].shallow_clone().copy_(&weight));
            norm.pack(precision);
            let y = norm.forward(&x.to_kind(precision.kind()));
            assert_eq!(y.kind(), precision.kind());
            let error = ((y.to_kind(Kind::Float) - &expected).norm() / expected.norm()).double_value(&[]);
            assert!(error < bound, "{precision:?}: the error is {error}");
        }
        let vs = VarStore::new(Device::Cpu);
        let mut norm = RmsNorm::new(&vs.root(), width, eps);
        norm.pack(Precision::F32);
        assert_eq!(norm.forward(&x.zeros_like()), x.zeros_like());
    }

    #[test]
    fn stacked_norms_are_the_single_norms_and_equal_the_definition() {
        let (width, eps) = (6, 1e-3);
        let vs = VarStore::new(Device::Cpu);
        let stacked = RmsNorm::stacked(&(vs.root() / "both"), 2, width, eps);
        let weight = normal(1, &[2 * width]);
        tch::no_grad(|| vs.variables()["both.weight"].shallow_clone().copy_(&weight));
        let x = normal(2, &[5, 2, 3, width]);
        let found = stacked.forward(&x);
        for index in 0..2 {
            let vs = VarStore::new(Device::Cpu);
            let single = RmsNorm::new(&vs.root(), width, eps);
            let weight = weight.narrow(0, index * width, width);
            tch::no_grad(|| vs.variables()["weight"].shallow_clone().copy_(&weight));
            let x = x.select(1, index);
            let mean = x.square().mean_dim([-1i64].as_slice(), true, Kind::Float);
            let expected = &x / (mean + eps).sqrt() * weight;
            for found in [found.select(1, index), single.forward(&x)] {
                let difference = (found - &expected).abs().max().double_value(&[]);
                assert!(difference < 1e-5, "norm {index} differs by {difference}");
            }
        }
    }
}
