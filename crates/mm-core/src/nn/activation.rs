//! Activation functions.

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The activation between the two linear layers of an MLP, named as in Hugging Face's `hidden_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, OpenAI CLIP's.
    QuickGelu,
    /// The exact, erf-based GELU (Hendrycks & Gimpel 2016).
    Gelu,
    /// GELU's tanh approximation, SigLIP's and GPT-2's.
    #[serde(alias = "gelu_new")]
    GeluPytorchTanh,
    /// `max(x, 0)`.
    Relu,
}

/// The slope inside [`Activation::QuickGelu`]'s sigmoid.
pub(super) const QUICK_GELU_SLOPE: f64 = 1.702;

impl Activation {
    /// The name that configs have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuickGelu => "quick_gelu",
            Self::Gelu => "gelu",
            Self::GeluPytorchTanh => "gelu_pytorch_tanh",
            Self::Relu => "relu",
        }
    }

    /// Applies the activation to each element of `x`, of any shape.
    pub fn forward(self, x: &Tensor) -> Tensor {
        match self {
            // silu(ax) / a is the same function in two fused passes, where the plain form needs three and
            // keeps two tensors.
            Self::QuickGelu => (x * QUICK_GELU_SLOPE).silu() / QUICK_GELU_SLOPE,
            Self::Gelu => x.gelu("none"),
            Self::GeluPytorchTanh => x.gelu("tanh"),
            Self::Relu => x.relu(),
        }
    }
}
