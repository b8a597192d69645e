use super::weights::scale_of;
use crate::nn::quantise_rows;
use tch::Tensor;

/// The matrices of linear layers as int8, each with the f32 scales of its rows (absmax / 127) beside it as
/// `NAME_scale`; all other tensors as they are. [`Weights`](super::Weights) reads both as one f32 matrix.
pub fn quantise(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if !is_linear(&name, &tensor) {
            stored.push((name, tensor));
            continue;
        }
        let (integers, scales) = quantise_rows(&tensor);
        stored.push((scale_of(&name), scales));
        stored.push((name, integers));
    }
    stored
}

/// Whether a tensor is the weight of a linear layer, and no table that rows are looked up in.
fn is_linear(name: &str, tensor: &Tensor) -> bool {
    tensor.dim() == 2 && name.ends_with("weight") && !name.contains("embedding") && tensor.numel() > 0
}
