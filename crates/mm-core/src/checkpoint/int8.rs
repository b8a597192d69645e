//! Weights of linear layers stored as int8.

use super::weights::scale_of;
use crate::nn::quantize_rows;
use tch::Tensor;

/// Quantizes the matrices of linear layers to int8, each with the f32 scales of its rows (absmax / 127) as
/// `NAME_scale`; other tensors are unchanged. [`Weights`](super::Weights) reads both as one f32 matrix.
pub fn quantise(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if !is_linear(&name, &tensor) {
            stored.push((name, tensor));
            continue;
        }
        let (integers, scales) = quantize_rows(&tensor);
        stored.push((scale_of(&name), scales));
        stored.push((name, integers));
    }
    stored
}

/// Whether a tensor is the weight of a linear layer, not an embedding table.
fn is_linear(name: &str, tensor: &Tensor) -> bool {
    tensor.dim() == 2 && name.ends_with("weight") && !name.contains("embedding") && tensor.numel() > 0
}
