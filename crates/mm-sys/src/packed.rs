//! Linear layers packed for oneDNN.

use crate::error::{Result, made};
use std::ffi::{CStr, c_char};
use tch::{Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_pack_linear(weight: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn mm_packed_linear(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        post: *const c_char,
        algorithm: *const c_char,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// An operation on the output of a linear layer, fused by oneDNN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostOp {
    /// No operation.
    None,
    /// `x sigmoid(x)`.
    Swish,
    /// The exact GELU.
    Gelu,
    /// GELU's tanh approximation.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl PostOp {
    /// Applies the operation in place, without fusion.
    pub fn apply(self, mut y: Tensor) -> Tensor {
        match self {
            Self::None => y,
            Self::Swish => y.silu_(),
            Self::Gelu => y.gelu_("none"),
            Self::GeluTanh => y.gelu_("tanh"),
            Self::Relu => y.relu_(),
        }
    }

    /// Its name and algorithm in `mkldnn::_linear_pointwise`.
    fn names(self) -> (&'static CStr, &'static CStr) {
        match self {
            Self::None => (c"none", c""),
            Self::Swish => (c"swish", c""),
            Self::Gelu => (c"gelu", c"none"),
            Self::GeluTanh => (c"gelu", c"tanh"),
            Self::Relu => (c"relu", c""),
        }
    }
}

/// A linear layer with its weight packed once for oneDNN's kernels on this processor. On other devices, or
/// where oneDNN does not support the weight, it keeps the plain layout and computes the same.
#[derive(Debug)]
pub struct PackedLinear {
    weight: Tensor,
    bias: Option<Tensor>,
    for_onednn: bool,
}

impl PackedLinear {
    /// Packs `weight` `[out, in]`; `bias` is `[out]`, of the same type.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Self {
        let bias = bias.map(Tensor::detach);
        let weight = weight.detach().contiguous();
        let packed = match (weight.device(), weight.kind()) {
            (tch::Device::Cpu, Kind::Float | Kind::BFloat16) => pack(&weight).ok(),
            _ => None,
        };
        let for_onednn = packed.is_some();
        Self { weight: packed.unwrap_or(weight), bias, for_onednn }
    }

    /// Maps `x` `[..., in]`, converted to the weight's type, to `[..., out]` and applies `post`.
    ///
    /// # Panics
    /// The last dimension of `x` is not `in`, as with every tch function without `f_`.
    pub fn forward(&self, x: &Tensor, post: PostOp) -> Tensor {
        let x = x.to_kind(self.weight.kind());
        if self.for_onednn {
            return linear(&x, &self.weight, self.bias.as_ref(), post)
                .expect("a packed linear layer's input fits its weight");
        }
        post.apply(x.linear(&self.weight, self.bias.as_ref()))
    }
}

fn pack(weight: &Tensor) -> Result<Tensor> {
    // SAFETY: `weight` lives through the call.
    unsafe { made(|out| mm_pack_linear(weight.as_ptr(), out)) }
}

fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, post: PostOp) -> Result<Tensor> {
    let (name, algorithm) = post.names();
    let bias = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    // SAFETY: all tensors live through the call, the strings are static and NUL-terminated, a null bias is
    // allowed by the shim.
    unsafe {
        made(|out| {
            mm_packed_linear(x.as_ptr(), weight.as_ptr(), bias, name.as_ptr(), algorithm.as_ptr(), out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{assert_close, normal};

    #[test]
    fn packed_linear_equals_plain_linear_with_each_post_op() {
        let (x, weight, bias) = (normal(1, &[2, 5, 24]), normal(2, &[16, 24]), normal(3, &[16]));
        let packed = PackedLinear::new(&weight, Some(&bias));
        let plain = x.linear(&weight, Some(&bias));
        let terms = x.abs().linear(&weight.abs(), Some(&bias.abs()));
        for post in [PostOp::None, PostOp::Swish, PostOp::Gelu, PostOp::GeluTanh, PostOp::Relu] {
            assert_close(&format!("{post:?}"), &packed.forward(&x, post), &post.apply(plain.copy()), &terms);
        }
    }
}
