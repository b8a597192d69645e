//! The precision of matrix products.

mod probe;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

pub use probe::PrecisionProbe;

/// The number format of matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats: the reference.
    #[default]
    F32,
    /// bfloat16 products with f32 weights, norms and losses (autocast) in training; bfloat16 weights, packed,
    /// in inference.
    Bf16,
    /// For inference on a CPU only: linear layers in int8, with a scale for each row of weights and of
    /// inputs; all else in f32.
    Int8,
}

impl Precision {
    /// Runs the forward pass of a training step in this precision on `device`.
    pub fn autocast<T>(self, device: Device, body: impl FnOnce() -> T) -> T {
        match self {
            Self::F32 | Self::Int8 => body(),
            Self::Bf16 => mm_sys::autocast_bf16(device, body),
        }
    }

    /// The element type of the activations of a packed model.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 | Self::Int8 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// A configured precision: a [`Precision`], or `"auto"` for the faster of f32 and bf16, measured by
/// [`PrecisionProbe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionConfig {
    /// Measured at the start of the run.
    Auto,
    /// [`Precision::F32`].
    #[default]
    F32,
    /// [`Precision::Bf16`].
    Bf16,
    /// [`Precision::Int8`].
    Int8,
}

impl PrecisionConfig {
    /// The precision; none for `auto`.
    pub fn fixed(self) -> Option<Precision> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Bf16),
            Self::Int8 => Some(Precision::Int8),
        }
    }
}

impl From<Precision> for PrecisionConfig {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }
}
