//! The MLP of a block, in either form.

use super::block_config::layer_path;
use super::{BlockConfig, BlockNames, GatedMlp, Linear, Mlp, MlpKind};
use crate::Precision;
use tch::Tensor;
use tch::nn::Path;

/// The MLP of a block.
#[derive(Debug)]
pub(super) enum FeedForward {
    Plain(Mlp),
    Gated(GatedMlp),
}

impl FeedForward {
    /// Creates the parameters below the block's `path`.
    pub fn new(path: &Path, config: &BlockConfig, names: &BlockNames) -> Self {
        let (width, hidden, std) = (config.width, config.mlp_width, config.init_std());
        match config.mlp {
            MlpKind::Plain => {
                let fc1 = Linear::new(&layer_path(path, names.fc1), width, hidden, std.mlp_in);
                let fc2 = Linear::new(&layer_path(path, names.fc2), hidden, width, std.out);
                Self::Plain(Mlp::new(fc1, fc2, config.activation).with_dropout(config.dropout))
            }
            MlpKind::Gated => {
                let linear = |name: &str, input: i64, output: i64, std: f64| {
                    Linear::without_bias(&layer_path(path, name), input, output, std)
                };
                let gate_proj = linear(names.gate_proj, width, hidden, std.mlp_in);
                let up_proj = linear(names.fc1, width, hidden, std.mlp_in);
                let down_proj = linear(names.fc2, hidden, width, std.out);
                Self::Gated(GatedMlp::new(gate_proj, up_proj, down_proj).with_dropout(config.dropout))
            }
        }
    }

    /// Maps `x` `[..., width]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Plain(mlp) => mlp.forward(x),
            Self::Gated(mlp) => mlp.forward(x),
        }
    }

    /// Turns dropout on or off.
    pub fn set_training(&self, on: bool) {
        match self {
            Self::Plain(mlp) => mlp.set_training(on),
            Self::Gated(mlp) => mlp.set_training(on),
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        match self {
            Self::Plain(mlp) => mlp.pack(precision),
            Self::Gated(mlp) => mlp.pack(precision),
        }
    }
}
