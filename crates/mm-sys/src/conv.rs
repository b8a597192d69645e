//! Convolutions packed for oneDNN, and group normalization with SiLU in one pass.

use crate::PostOp;
use crate::error::{Result, made};
use std::ffi::{CStr, c_char};
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_pack_conv(
        weight: *const C_tensor,
        stride: i64,
        padding: i64,
        input_size: *const i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mm_packed_conv(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        other: *const C_tensor,
        stride: i64,
        padding: i64,
        post: *const c_char,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mm_group_norm(
        x: *const C_tensor,
        groups: i64,
        weight: *const C_tensor,
        bias: *const C_tensor,
        eps: f64,
        silu: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// A convolution with its weight packed once for oneDNN's kernels on this processor; eager libtorch lays a
/// weight out again for each call. On other devices, or where oneDNN does not support the weight, it keeps
/// the plain layout and computes the same.
#[derive(Debug)]
pub struct PackedConv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    for_onednn: bool,
}

impl PackedConv {
    /// Packs `weight` `[out, in, k, k]`; `bias` is `[out]`, of the same type. The layout is the best for
    /// inputs of `input_size` `[B, in, H, W]`, where it is known, and serves all.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: i64,
        padding: i64,
        input_size: Option<[i64; 4]>,
    ) -> Self {
        let bias = bias.map(Tensor::detach);
        let weight = weight.detach().contiguous();
        let packed = match (weight.device(), weight.kind()) {
            (Device::Cpu, Kind::Float | Kind::BFloat16) => pack(&weight, stride, padding, input_size).ok(),
            _ => None,
        };
        let for_onednn = packed.is_some();
        Self { weight: packed.unwrap_or(weight), bias, stride, padding, for_onednn }
    }

    /// Maps `x` `[B, in, H, W]`, converted to the weight's type, to `[B, out, H', W']` and applies `post`.
    /// The output is channels-last where `x` is.
    ///
    /// # Panics
    /// `x` has other channels, as with every tch function without `f_`.
    pub fn forward(&self, x: &Tensor, post: PostOp) -> Tensor {
        let x = x.to_kind(self.weight.kind());
        if self.for_onednn {
            return self.packed(&x, None, post).expect("a packed convolution's input fits its weight");
        }
        post.apply(self.plain(&x))
    }

    /// As [`PackedConv::forward`], plus `other` of the output's shape.
    ///
    /// # Panics
    /// As [`PackedConv::forward`].
    pub fn forward_add(&self, x: &Tensor, other: &Tensor) -> Tensor {
        let x = x.to_kind(self.weight.kind());
        if self.for_onednn {
            return self
                .packed(&x, Some(other), PostOp::None)
                .expect("a packed convolution's input fits its weight");
        }
        self.plain(&x) + other
    }

    fn plain(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, self.bias.as_ref(), [self.stride; 2], [self.padding; 2], [1, 1], 1)
    }

    fn packed(&self, x: &Tensor, other: Option<&Tensor>, post: PostOp) -> Result<Tensor> {
        let name: &CStr = match post {
            PostOp::None => c"none",
            PostOp::Swish => c"swish",
            PostOp::Relu => c"relu",
            PostOp::Gelu | PostOp::GeluTanh => return Ok(post.apply(self.packed(x, other, PostOp::None)?)),
        };
        let bias = self.bias.as_ref().map_or(std::ptr::null(), Tensor::as_ptr);
        let other = other.map_or(std::ptr::null(), Tensor::as_ptr);
        // SAFETY: all tensors live through the call, the string is static and NUL-terminated, a null bias or
        // other is allowed by the shim.
        unsafe {
            made(|out| {
                let (x, weight) = (x.as_ptr(), self.weight.as_ptr());
                mm_packed_conv(x, weight, bias, other, self.stride, self.padding, name.as_ptr(), out)
            })
        }
    }
}

fn pack(weight: &Tensor, stride: i64, padding: i64, input_size: Option<[i64; 4]>) -> Result<Tensor> {
    let size = input_size.as_ref().map_or(std::ptr::null(), |size| size.as_ptr());
    // SAFETY: `weight` and the four numbers live through the call; null means an unknown size.
    unsafe { made(|out| mm_pack_conv(weight.as_ptr(), stride, padding, size, out)) }
}

/// Group normalization (Wu & He 2018) of channels-last `x` `[B, C, H, W]` in f32 or bf16 on the CPU, and
/// SiLU after it where `silu` is set, without a gradient. `weight` and `bias` are `[C]` in f32. The result
/// does not depend on the number of threads.
///
/// # Errors
/// `x` has another layout, type or device, or `groups` do not divide its channels.
pub fn group_norm(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    // SAFETY: the tensors live through the call, which checks their shapes, layouts and types.
    unsafe { made(|out| mm_group_norm(x.as_ptr(), groups, weight.as_ptr(), bias.as_ptr(), eps, silu, out)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{assert_close, normal};

    fn channels_last(x: &Tensor) -> Tensor {
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    }

    #[test]
    fn packed_convolution_equals_the_plain_one() {
        let (weight, bias) = (normal(2, &[16, 24, 3, 3]), normal(3, &[16]));
        for stride in [1, 2] {
            let x = normal(1, &[2, 24, 10, 12]);
            let conv =
                |x: &Tensor, w: &Tensor, b: &Tensor| x.conv2d(w, Some(b), [stride; 2], [1, 1], [1, 1], 1);
            let (plain, terms) = (conv(&x, &weight, &bias), conv(&x.abs(), &weight.abs(), &bias.abs()));
            for size in [None, Some([2, 24, 10, 12])] {
                let packed = PackedConv::new(&weight, Some(&bias), stride, 1, size);
                for x in [&x, &channels_last(&x)] {
                    for post in [PostOp::None, PostOp::Swish, PostOp::Gelu, PostOp::Relu] {
                        let found = packed.forward(x, post);
                        assert_close(&format!("{post:?}"), &found, &post.apply(plain.copy()), &terms);
                    }
                    let other = channels_last(&normal(4, &plain.size()));
                    let expected = &plain + &other;
                    let found = packed.forward_add(x, &other);
                    assert_close("a sum", &found, &expected, &(&terms + other.abs()));
                }
            }
        }
    }

    #[test]
    fn group_norm_equals_libtorchs_with_and_without_silu() {
        let (weight, bias) = (normal(2, &[24]), normal(3, &[24]));
        for (side, mean) in [(1, 0.0), (7, 0.0), (64, 100.0)] {
            let x = channels_last(&(normal(1, &[2, 24, side, side + 1]) + mean));
            let expected = x.to_kind(Kind::Double).group_norm(
                6,
                Some(weight.to_kind(Kind::Double)),
                Some(bias.to_kind(Kind::Double)),
                1e-5,
                false,
            );
            let terms = Tensor::from(4.0 + 4.0 * mean);
            for silu in [false, true] {
                let found = group_norm(&x, 6, &weight, &bias, 1e-5, silu).unwrap();
                let expected = if silu { expected.silu() } else { expected.shallow_clone() };
                assert_close("group norm", &found, &expected, &terms);
            }
        }
        assert!(group_norm(&normal(1, &[2, 24, 3, 3]), 5, &weight, &bias, 1e-5, true).is_err());
    }
}
