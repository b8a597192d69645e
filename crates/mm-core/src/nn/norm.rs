//! Layer normalization and embeddings.

use super::parameter;
use crate::Precision;
use tch::Tensor;
use tch::nn::{Init, Path};

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
