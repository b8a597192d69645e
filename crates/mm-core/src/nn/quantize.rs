//! Quantization of weights to int8.

use tch::{Kind, Tensor};

/// The largest int8 that a weight becomes: -128 is left out, so that a sign can be turned.
const LARGEST: f64 = 127.0;

/// A weight `[out, in]` as integers `[out, in]` (i8) and the scales `[out]` (f32) of its rows, absmax / 127.
pub fn quantize_rows(weight: &Tensor) -> (Tensor, Tensor) {
    tch::no_grad(|| {
        let scales = weight.abs().amax([1i64].as_slice(), true).to_kind(Kind::Float) / LARGEST; // [out, 1]
        // A row of zeros has no scale of its own.
        let scales = scales.where_self(&scales.gt(0.0), &Tensor::ones_like(&scales));
        ((weight / &scales).round().to_kind(Kind::Int8), scales.view(-1))
    })
}
