//! 3 x 3 convolutions with fewer multiplications.

use crate::error::{Result, made};
use std::ffi::c_char;
use tch::{Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_winograd(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        other: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// A 3 x 3 convolution of stride 1 and padding 1 in f32 on the CPU, by Winograd's F(2 x 2, 3 x 3) (Lavin &
/// Gray 2016, section 4.1): 2.25 times fewer multiplications, and a rounding error of about 4e-6 of the
/// output. The weight takes 16/9 of its memory. The result does not depend on the number of threads.
#[derive(Debug)]
pub struct WinogradConv {
    /// The transformed weight, `[16, in, out]`.
    weight: Tensor,
    bias: Tensor,
}

impl WinogradConv {
    /// Transforms `weight` `[out, in, 3, 3]`; `bias` is `[out]`.
    ///
    /// # Panics
    /// `weight` has another shape.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Self {
        let (output, input, _, _) = weight.size4().expect("a weight is [out, in, 3, 3]");
        let g = Tensor::from_slice(&[1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 1.0f64])
            .view([4, 3]);
        // [out, in, 4, 4]
        let transformed = g.matmul(&weight.detach().to_kind(Kind::Double)).matmul(&g.transpose(0, 1));
        let transformed = transformed.permute([2, 3, 1, 0]).reshape([16, input, output]);
        let contiguous = |x: Tensor| x.to_kind(Kind::Float).contiguous();
        Self { weight: contiguous(transformed), bias: contiguous(bias.detach()) }
    }

    /// Maps channels-last `x` `[B, in, H, W]` to channels-last `[B, out, H, W]`, plus `other` of that shape
    /// and layout.
    ///
    /// # Errors
    /// `x` or `other` has another shape, layout or type.
    pub fn forward(&self, x: &Tensor, other: Option<&Tensor>) -> Result<Tensor> {
        let other = other.map_or(std::ptr::null(), Tensor::as_ptr);
        // SAFETY: the tensors live through the call, which checks their shapes, layouts and types; a null
        // `other` is allowed by the shim.
        unsafe { made(|out| mm_winograd(x.as_ptr(), self.weight.as_ptr(), self.bias.as_ptr(), other, out)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;
    use tch::Device;

    #[test]
    fn it_equals_the_direct_convolution_for_any_size() {
        let (weight, bias) = (normal(1, &[12, 20, 3, 3]), normal(2, &[12]));
        let conv = WinogradConv::new(&weight, &bias);
        for (batch, height, width) in [(1, 1, 1), (2, 5, 7), (3, 32, 26), (1, 2, 9)] {
            let channels_last = |x: Tensor| x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            let x = channels_last(normal(3, &[batch, 20, height, width]));
            let other = channels_last(normal(4, &[batch, 12, height, width]));
            let direct = x.conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1);
            for (found, expected) in [
                (conv.forward(&x, None).unwrap(), direct.shallow_clone()),
                (conv.forward(&x, Some(&other)).unwrap(), &direct + &other),
            ] {
                let off = (found - &expected).abs().max().double_value(&[]);
                assert!(off < 1e-5 * 14.0 * 3.0, "{height} x {width}: off by {off}");
            }
        }
        assert!(conv.forward(&Tensor::zeros([1, 3, 4, 4], (Kind::Float, Device::Cpu)), None).is_err());
    }
}
