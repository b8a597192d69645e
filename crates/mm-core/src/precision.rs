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

    /// Warns where `device` computes in this precision only by detours: a processor without bf16 products takes many times as long as
    /// in f32.
    pub fn warn_if_emulated(self, device: Device) {
        if self == Self::Bf16 && device == Device::Cpu && !has_bf16_products() {
            tracing::warn!(
                "this processor has no bf16 products and emulates them: precision f32 is many times as fast"
            );
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

fn has_bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
