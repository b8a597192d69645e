use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

/// The numbers that matrix products are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats: the reference.
    #[default]
    F32,
    /// bfloat16 products with f32 weights, norms and losses (autocast) in training; bfloat16 weights, packed, in inference.
    Bf16,
    /// In inference on a CPU alone: linear layers in int8, with a scale for each row of weights and of inputs; all else in f32.
    Int8,
}

impl Precision {
    /// Runs a training step's forward pass in this precision on `device`.
    pub fn autocast<T>(self, device: Device, body: impl FnOnce() -> T) -> T {
        match self {
            Self::F32 | Self::Int8 => body(),
            Self::Bf16 => mm_sys::autocast_bf16(device, body),
        }
    }

    /// The element type of what a packed model computes outside of int8 products.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 | Self::Int8 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}
