//! Weights in safetensors files: read strictly, written atomically.
//!
//! The variables of a model have the names of Hugging Face's checkpoints, except those that are kept joined
//! (see [`crate::nn`]); a [`TensorLayout`] describes how a family of checkpoints stores each. Missing, extra
//! or misshapen tensors are an error that names the first three.

mod build;
mod digest;
mod files;
mod finite;
mod int8;
mod pickle;
mod stored_type;
mod targets;
mod weights;
mod write;

pub use build::variable_shapes;
pub use digest::{folder_digest, hex};
pub use files::refuse_lfs_pointer;
pub(crate) use files::{ShardIndex, file_names};
pub use int8::quantise;
pub(crate) use pickle::{PICKLE, pickle};
pub use stored_type::StoredType;
pub use weights::{TensorInfo, Weights};
pub use write::{partial_file, write, write_atomically, write_folder, write_with_metadata};

use crate::Result;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Maps the name of a variable to the names of the tensors in the file whose rows, stacked, are the variable.
pub type NameMap = fn(&str) -> Vec<String>;

/// The Hugging Face names: `self_attn.in_proj` is `q_proj`, `k_proj`, `v_proj`; BERT's
/// `attention.self.in_proj` and ViT's `attention.attention.in_proj` are `query`, `key`, `value`; the
/// `kv_proj` of cross-attention and of grouped attention is `k_proj` and `v_proj`, or BERT's `key` and
/// `value`; all others are unchanged.
pub fn hf_names(name: &str) -> Vec<String> {
    let split = |joined: &str, parts: &[&str]| -> Vec<String> {
        parts.iter().map(|part| name.replacen(joined, part, 1)).collect()
    };
    if name.contains("self_attn.in_proj.") {
        split("in_proj", &["q_proj", "k_proj", "v_proj"])
    } else if name.contains("attention.self.in_proj.") || name.contains("attention.attention.in_proj.") {
        split("in_proj", &["query", "key", "value"])
    } else if name.contains("encoder_attn.kv_proj.") || name.contains("self_attn.kv_proj.") {
        split("kv_proj", &["k_proj", "v_proj"])
    } else if name.contains("crossattention.self.kv_proj.") {
        split("kv_proj", &["key", "value"])
    } else {
        vec![name.to_owned()]
    }
}

/// How a family of checkpoints stores the variables of a model.
#[derive(Clone, Copy, Debug)]
pub struct TensorLayout {
    /// The tensors of each variable.
    pub names: NameMap,
    /// Whether the file holds the transpose of a variable.
    pub is_transposed: fn(&str) -> bool,
}

impl TensorLayout {
    /// The layout of Hugging Face's checkpoints.
    pub const HF: Self = Self { names: hf_names, is_transposed: |_| false };

    /// Every variable unchanged, under its own name.
    pub const AS_IS: Self = Self { names: |name| vec![name.to_owned()], is_transposed: |_| false };
}

/// Fills every variable of `vs` from the safetensors `file`, converting f16, bf16, f64 and int8 to the
/// variable's type.
///
/// # Errors
/// The file cannot be read or is damaged, a tensor is missing, extra or of another shape, or one has NaN or
/// infinite numbers.
pub fn load(vs: &VarStore, file: &Path, names: NameMap) -> Result<()> {
    Weights::open(file)?
        .fill(vs.variables().into_iter().collect(), &TensorLayout { names, ..TensorLayout::HF })
}

/// Writes every variable of `vs` to the safetensors `file`.
///
/// # Errors
/// The file cannot be written; an existing file is then unchanged.
pub fn save(vs: &VarStore, file: &Path, names: NameMap) -> Result<()> {
    write(file, &stored(vs.variables(), &TensorLayout { names, ..TensorLayout::HF }))
}

/// `variables`, by name, as tensors in `layout`: views where possible.
pub fn stored(
    variables: impl IntoIterator<Item = (String, Tensor)>,
    layout: &TensorLayout,
) -> Vec<(String, Tensor)> {
    let variables: BTreeMap<String, Tensor> = variables.into_iter().collect();
    let mut tensors = Vec::new();
    for (name, variable) in variables {
        let (parts, variable) = ((layout.names)(&name), variable.detach());
        let variable = if (layout.is_transposed)(&name) { variable.transpose(0, 1) } else { variable };
        match parts.len() {
            1 => tensors.extend(parts.into_iter().zip([variable])),
            count => tensors.extend(parts.into_iter().zip(variable.chunk(count as i64, 0))),
        }
    }
    tensors
}

/// Fills `targets`, by name, from the safetensors `file`. Values need not be finite: the moments of an
/// optimizer may not be.
///
/// # Errors
/// As [`load`].
pub fn read_into(file: &Path, targets: Vec<(String, Tensor)>) -> Result<()> {
    Weights::open(file)?.fill_any(targets, &TensorLayout::AS_IS)
}

const TYPES: [(Dtype, Kind); 7] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::F64, Kind::Double),
    (Dtype::I64, Kind::Int64),
    (Dtype::U8, Kind::Uint8),
    (Dtype::I8, Kind::Int8),
];

fn kind_of(dtype: Dtype) -> Option<Kind> {
    TYPES.iter().find(|&&(d, _)| d == dtype).map(|&(_, kind)| kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    TYPES.iter().find(|&&(_, k)| k == kind).map(|&(dtype, _)| dtype)
}

#[cfg(test)]
mod tests;
