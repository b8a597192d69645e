//! The MLP of a transformer block.

use super::activation::QUICK_GELU_SLOPE;
use super::{Activation, Dropout, Linear};
use crate::Precision;
use mm_sys::PostOp;
use tch::Tensor;

/// Two linear layers with an activation between: `fc1` `[mlp_width, width]`, `fc2` `[width, mlp_width]`.
#[derive(Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
    dropout: Dropout,
}

impl Mlp {
    /// An MLP of these layers.
    pub fn new(fc1: Linear, fc2: Linear, activation: Activation) -> Self {
        Self { fc1, fc2, activation, dropout: Dropout::default() }
    }

    /// The same MLP with dropout of its activations.
    pub fn with_dropout(self, probability: f64) -> Self {
        Self { dropout: Dropout::new(probability), ..self }
    }

    /// Turns dropout on or off.
    pub fn set_training(&self, on: bool) {
        self.dropout.set_training(on);
    }

    /// Maps `x` `[..., width]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if !self.fc1.is_packed() {
            let activations = self.activation.forward(&self.fc1.forward(x));
            return self.fc2.forward(&self.dropout.forward(activations));
        }
        let post = match self.activation {
            Activation::QuickGelu => PostOp::Swish, // its slope is in the packed weights
            Activation::Gelu => PostOp::Gelu,
            Activation::GeluPytorchTanh => PostOp::GeluTanh,
            Activation::Relu => PostOp::Relu,
        };
        self.fc2.forward(&self.fc1.forward_then(x, post))
    }

    /// Prepares for inference in `precision`. oneDNN fuses `x sigmoid(x)` but not quick GELU's
    /// `x sigmoid(a x)`, so `a` moves into the weights: `fc1` is scaled by `a` and `fc2`'s weight by `1 / a`.
    pub fn pack(&mut self, precision: Precision) {
        let slope = if self.activation == Activation::QuickGelu { QUICK_GELU_SLOPE } else { 1.0 };
        self.fc1.pack_scaled(precision, slope, slope);
        self.fc2.pack_scaled(precision, slope.recip(), 1.0);
    }
}
