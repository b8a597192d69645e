//! Element types in files.

use super::quantise;
use tch::{Kind, Tensor};

/// The element type in which tensors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// The matrices of linear layers as int8 with one scale a row, all else as f32.
    Int8,
}

impl StoredType {
    /// The name of the type that a reader computes in, as `dtype` in a transformers `config.json`.
    pub fn hf_name(self) -> &'static str {
        match self {
            Self::F32 | Self::Int8 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// `tensors` in this type; int8 adds a tensor `NAME_scale` for each matrix.
    pub fn convert(self, tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
        let kind = match self {
            Self::F32 => Kind::Float,
            Self::F16 => Kind::Half,
            Self::Bf16 => Kind::BFloat16,
            Self::Int8 => return quantise(tensors),
        };
        tensors.into_iter().map(|(name, tensor)| (name, tch::no_grad(|| tensor.to_kind(kind)))).collect()
    }
}
