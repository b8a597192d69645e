use super::weights::scale_of;
use tch::{Kind, Tensor};

/// The largest int8 that a weight becomes: -128 is left out, so that a sign can be turned.
const LARGEST: f64 = 127.0;

/// The matrices of linear layers as int8, each with the f32 scales of its rows (absmax / 127) beside it as `NAME_scale`; all other
/// tensors as they are. [`Weights`](super::Weights) reads both as one f32 matrix.
pub fn quantise(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if !is_linear(&name, &tensor) {
            stored.push((name, tensor));
            continue;
        }
        let (integers, scales) = tch::no_grad(|| {
            let scales = tensor.abs().amax([1i64].as_slice(), true).to_kind(Kind::Float) / LARGEST; // [out, 1]
            // A row of zeros has no scale of its own.
            let scales = scales.where_self(&scales.gt(0.0), &Tensor::ones_like(&scales));
            ((&tensor / &scales).round().to_kind(Kind::Int8), scales.view(-1))
        });
        stored.push((scale_of(&name), scales));
        stored.push((name, integers));
    }
    stored
}

/// Whether a tensor is the weight of a linear layer, and no table that rows are looked up in.
fn is_linear(name: &str, tensor: &Tensor) -> bool {
    tensor.dim() == 2 && name.ends_with("weight") && !name.contains("embedding") && tensor.numel() > 0
}
