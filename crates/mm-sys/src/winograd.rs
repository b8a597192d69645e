//! 3 x 3 convolutions with fewer multiplications.

use crate::error::{Result, made};
use std::ffi::c_char;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_has_winograd(bf16: bool) -> bool;
    fn mm_winograd(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        other: *const C_tensor,
        doubled: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Outputs whose weights are next to each other.
const PANEL: i64 = 32;

/// Channels of the input are a multiple of it.
const MULTIPLE: i64 = 16;

/// A 3 x 3 convolution of stride 1 and padding 1 on the CPU, by Winograd's F(4 x 4, 3 x 3) (Lavin & Gray
/// 2016, section 4.2): 4 times fewer multiplications, and a rounding error of about 1e-6 of the output's
/// deviation, five times the direct one's. Images and weights are f32 or bf16, the arithmetic is f32. The
/// result does not depend on the number of threads.
#[derive(Debug)]
pub struct WinogradConv {
    /// `[out / 32, in, 9, 32]`.
    weight: Tensor,
    /// In f32.
    bias: Tensor,
}

impl WinogradConv {
    /// Whether there is such a convolution of `input` to `output` channels in `kind`: it needs AVX2, and a
    /// multiple of 16 and of 32 channels. In bf16, AMX's direct products are faster.
    pub fn is_offered(input: i64, output: i64, kind: Kind, device: Device) -> bool {
        // SAFETY: it reads what the processor offers.
        let has = |bf16| unsafe { mm_has_winograd(bf16) };
        (device, input % MULTIPLE, output % PANEL) == (Device::Cpu, 0, 0)
            && match kind {
                Kind::Float => has(false),
                Kind::BFloat16 => has(true),
                _ => false,
            }
    }

    /// Lays out `weight` `[out, in, 3, 3]`; `bias` is `[out]`.
    ///
    /// # Panics
    /// `weight` has another shape, or `out` is no multiple of 32.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Self {
        let (output, input, _, _) = weight.size4().expect("a weight is [out, in, 3, 3]");
        let panels = weight.detach().reshape([output / PANEL, PANEL, input, 9]).permute([0, 2, 3, 1]);
        Self { weight: panels.contiguous(), bias: bias.detach().to_kind(Kind::Float).contiguous() }
    }

    /// The type of the weight, which the input has too.
    pub fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// Maps channels-last `x` `[B, in, H, W]` to channels-last `[B, out, H, W]`, plus `other` of that shape,
    /// type and layout.
    ///
    /// # Errors
    /// `x` or `other` has another shape, layout or type.
    pub fn forward(&self, x: &Tensor, other: Option<&Tensor>) -> Result<Tensor> {
        self.run(x, other, false)
    }

    /// As [`WinogradConv::forward`] of `x` with each pixel repeated to 2 x 2: `[B, out, 2 H, 2 W]`.
    ///
    /// # Errors
    /// As [`WinogradConv::forward`].
    pub fn forward_doubled(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None, true)
    }

    fn run(&self, x: &Tensor, other: Option<&Tensor>, doubled: bool) -> Result<Tensor> {
        let other = other.map_or(std::ptr::null(), Tensor::as_ptr);
        let (weight, bias) = (self.weight.as_ptr(), self.bias.as_ptr());
        // SAFETY: the tensors live through the call, which checks their shapes, layouts and types; a null
        // `other` is allowed by the shim.
        unsafe { made(|out| mm_winograd(x.as_ptr(), weight, bias, other, doubled, out)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;

    fn channels_last(x: &Tensor) -> Tensor {
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    }

    /// The largest error of the three forms, for inputs of deviation 1 and weights of deviation 0.1.
    fn error(kind: Kind, [batch, input, output, height, width]: [i64; 5]) -> f64 {
        let weight = (normal(1, &[output, input, 3, 3]) * 0.1).to_kind(kind);
        let bias = normal(2, &[output]);
        let conv = WinogradConv::new(&weight, &bias);
        let x = channels_last(&normal(3, &[batch, input, height, width])).to_kind(kind);
        let other = channels_last(&normal(4, &[batch, output, height, width])).to_kind(kind);
        let double = |x: &Tensor| x.to_kind(Kind::Double);
        let direct =
            |x: &Tensor| double(x).conv2d(&double(&weight), Some(double(&bias)), [1, 1], [1, 1], [1, 1], 1);
        let repeated = x.upsample_nearest2d([2 * height, 2 * width], None, None);
        let pairs = [
            (conv.forward(&x, None), direct(&x)),
            (conv.forward(&x, Some(&other)), direct(&x) + double(&other)),
            (conv.forward_doubled(&x), direct(&repeated)),
        ];
        let off = |(found, expected): (Result<Tensor>, Tensor)| {
            (double(&found.unwrap()) - expected).abs().max().double_value(&[])
        };
        pairs.into_iter().map(off).fold(0.0, f64::max)
    }

    #[test]
    fn it_equals_the_direct_convolution_for_any_size() {
        if !WinogradConv::is_offered(16, 32, Kind::Float, Device::Cpu) {
            return;
        }
        for shape in [
            [1, 16, 32, 1, 1],
            [2, 48, 32, 5, 7],
            [3, 80, 64, 32, 26],
            [1, 144, 96, 2, 9],
            [2, 64, 32, 90, 70],
        ] {
            let off = error(Kind::Float, shape);
            assert!(off < 5e-5, "{shape:?}: off by {off}");
        }
        // Half a unit in the last place of numbers below 16.
        let off = error(Kind::BFloat16, [2, 48, 32, 5, 7]);
        assert!(off < 0.032, "bf16: off by {off}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let conv = WinogradConv::new(&normal(1, &[32, 16, 3, 3]), &normal(2, &[32]));
        let x = |channels: i64, kind| channels_last(&Tensor::zeros([1, channels, 4, 4], (kind, Device::Cpu)));
        assert!(conv.forward(&x(32, Kind::Float), None).is_err());
        assert!(conv.forward(&x(16, Kind::BFloat16), None).is_err());
        assert!(conv.forward(&x(16, Kind::Float), Some(&x(16, Kind::Float))).is_err());
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        if !WinogradConv::is_offered(64, 96, Kind::Float, Device::Cpu) {
            return;
        }
        let conv = WinogradConv::new(&normal(1, &[96, 64, 3, 3]), &normal(2, &[96]));
        let x = channels_last(&normal(3, &[1, 64, 33, 40]));
        let threads = tch::get_num_threads();
        let run = |threads| {
            tch::set_num_threads(threads);
            conv.forward(&x, None).unwrap()
        };
        let equal = run(1).equal(&run(3));
        tch::set_num_threads(threads);
        assert!(equal);
    }
}
