//! SigLIP's pooling head.

use crate::attention_pool::AttentionPool;
use mm_core::Precision;
use mm_core::nn::{BlockConfig, LayerNorm, Linear, Mlp, parameter};
use tch::Tensor;
use tch::nn::{Init, Path};

/// SigLIP's pooling: a learned query attends over all tokens, followed by an MLP with a residual connection.
#[derive(Debug)]
pub(crate) struct MapHead {
    probe: Tensor,
    attention: AttentionPool,
    norm: LayerNorm,
    mlp: Mlp,
}

impl MapHead {
    pub(crate) fn new(path: &Path, block: &BlockConfig) -> Self {
        let (width, mlp_width, mlp) = (block.width, block.mlp_width, path / "mlp");
        let std = (width as f64).powf(-0.5);
        let probe = parameter(path, "probe", &[1, 1, width], Init::Randn { mean: 0.0, stdev: std });
        let attention = AttentionPool::multihead(&(path / "attention"), width, block.heads);
        let fc1 = Linear::new(&(&mlp / "fc1"), width, mlp_width, (2.0 * width as f64).powf(-0.5));
        let fc2 = Linear::new(&(&mlp / "fc2"), mlp_width, width, std);
        Self {
            probe,
            attention,
            norm: LayerNorm::new(&(path / "layernorm"), width, block.layer_norm_eps),
            mlp: Mlp::new(fc1, fc2, block.activation),
        }
    }

    /// Maps `x` `[B, L, width]` to `[B, width]`, and returns the weights `[B, heads, L]`.
    pub(crate) fn forward(&self, x: &Tensor) -> (Tensor, Tensor) {
        let (pooled, weights) = self.attention.forward(&self.probe.squeeze_dim(0), x);
        let normed = self.norm.forward(&pooled);
        (pooled + self.mlp.forward(&normed), weights)
    }

    pub(crate) fn pack(&mut self, precision: Precision) {
        self.probe = self.probe.detach().to_kind(precision.kind());
        self.attention.pack(precision);
        self.norm.pack(precision);
        self.mlp.pack(precision);
    }
}
