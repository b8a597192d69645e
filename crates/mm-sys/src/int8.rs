//! Linear layers in int8.

use crate::error::{Result, made};
use std::ffi::{c_char, c_int};
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_pack_int8(weight: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn mm_int8_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        scales: *const C_tensor,
        zero_points: *const C_tensor,
        sums: *const C_tensor,
        bias: *const C_tensor,
        levels: c_int,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// A linear layer in int8 on the CPU, packed once for oneDNN: one scale for each row of the weight, and one
/// scale and offset for each row of the input, computed dynamically. The output of a row does not depend on
/// the other rows.
#[derive(Debug)]
pub struct Int8Linear {
    weight: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    /// The sum of each row of the weight, for the offsets of inputs.
    sums: Tensor,
    bias: Tensor,
}

impl Int8Linear {
    /// Packs the weight whose row r is `integers` `[out, in]` (i8) times `scales` `[out]` (f32); `bias` is
    /// `[out]`, f32.
    ///
    /// # Errors
    /// The shapes do not fit, or this processor has no such kernel in libtorch.
    pub fn new(integers: &Tensor, scales: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let integers = integers.detach().to_device(Device::Cpu).contiguous();
        let row = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let scales = row(scales);
        let sums =
            integers.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64).to_kind(Kind::Float) * &scales;
        let bias = bias.map_or_else(|| scales.zeros_like(), row);
        let zero_points = scales.zeros_like().to_kind(Kind::Int64);
        Ok(Self { weight: pack(&integers)?, scales, zero_points, sums, bias })
    }

    /// Maps `x` `[..., in]` to `[..., out]`, f32. A row that is not finite becomes NaN.
    ///
    /// # Panics
    /// The last dimension of `x` is not `in`, as with every tch function without `f_`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut size = x.size();
        let width = size.pop().expect("a linear layer's input has a dimension");
        let rows = x.detach().to_kind(Kind::Float).reshape([-1, width]).contiguous();
        size.extend(self.scales.size());
        self.run(&rows).expect("an int8 linear layer's input fits its weight").view(size.as_slice())
    }

    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let Self { weight, scales, zero_points, sums, bias } = self;
        // SAFETY: all tensors live through the call; x is [rows, in], contiguous, f32 and on the CPU, scales,
        // sums and bias have out contiguous f32 each, and oneDNN checks x's width against the weight's.
        unsafe {
            made(|out| {
                mm_int8_linear(
                    x.as_ptr(),
                    weight.as_ptr(),
                    scales.as_ptr(),
                    zero_points.as_ptr(),
                    sums.as_ptr(),
                    bias.as_ptr(),
                    levels(),
                    out,
                )
            })
        }
    }
}

fn pack(integers: &Tensor) -> Result<Tensor> {
    // SAFETY: `integers` lives through the call.
    unsafe { made(|out| mm_pack_int8(integers.as_ptr(), out)) }
}

/// The largest integer of an input. Without VNNI two products are summed in 16 bits, which 7-bit inputs do
/// not overflow.
fn levels() -> c_int {
    static LEVELS: OnceLock<c_int> = OnceLock::new();
    *LEVELS.get_or_init(|| {
        let limit =
            ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"].into_iter().find_map(|name| std::env::var(name).ok());
        if has_wide_sums(limit.as_deref()) { 255 } else { 127 }
    })
}

/// Whether oneDNN's kernels sum products in 32 bits on this processor, within the instruction set that the
/// user may have limited it to.
fn has_wide_sums(limit: Option<&str>) -> bool {
    #[cfg(target_arch = "x86_64")]
    let (avx512, avx) = (is_x86_feature_detected!("avx512vnni"), is_x86_feature_detected!("avxvnni"));
    #[cfg(not(target_arch = "x86_64"))]
    let (avx512, avx) = (false, false);
    match limit.map(str::to_ascii_uppercase).as_deref() {
        Some("SSE41" | "AVX" | "AVX2" | "AVX512_CORE") => false,
        Some("AVX2_VNNI" | "AVX2_VNNI_2") => avx,
        _ => avx512 || avx,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{integers, normal};

    /// The layer with weights that are integers times `scale`, beside the weight in f32.
    fn layer(integers: &Tensor, scale: f64, bias: Option<&Tensor>) -> (Int8Linear, Tensor) {
        let scales = Tensor::full([integers.size()[0]], scale, (Kind::Float, Device::Cpu));
        (Int8Linear::new(integers, &scales, bias).unwrap(), integers.to_kind(Kind::Float) * scale)
    }

    #[test]
    fn an_int8_layer_is_within_the_rounding_of_its_inputs() {
        let (integers, bias) = (integers(1, -127..128, &[40, 96]).to_kind(Kind::Int8), normal(2, &[40]));
        let (int8, weight) = layer(&integers, 0.01, Some(&bias));
        let x = normal(3, &[2, 5, 96]) + 3.0;
        let exact = x.linear(&weight, Some(&bias));
        // Half a step of each input at most, times its weight.
        let step =
            (x.amax([-1i64].as_slice(), true) - x.amin([-1i64].as_slice(), true)) / f64::from(levels());
        let most = step * 0.51 * weight.abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        let y = int8.forward(&x);
        assert_eq!(y.size(), [2, 5, 40]);
        assert!(bool::try_from((y - exact).abs().le_tensor(&most).all()).unwrap());
    }

    #[test]
    fn a_limit_of_onednn_to_sets_without_vnni_is_heeded() {
        for limit in ["SSE41", "avx2", "AVX512_CORE"] {
            assert!(!has_wide_sums(Some(limit)), "{limit}");
        }
        for limit in [None, Some("ALL"), Some("AVX512_CORE_VNNI"), Some("AVX512_CORE_AMX")] {
            assert_eq!(has_wide_sums(limit), has_wide_sums(None), "{limit:?}");
        }
    }

    #[test]
    fn the_largest_products_do_not_overflow() {
        let integers = Tensor::full([8, 512], 127, (Kind::Int8, Device::Cpu));
        let (int8, weight) = layer(&integers, 1.0, None);
        let x = Tensor::ones([3, 512], (Kind::Float, Device::Cpu));
        let _ = x.select(1, 0).fill_(0.0); // all other inputs are the largest integer
        let (y, exact) = (int8.forward(&x), x.matmul(&weight.transpose(0, 1)));
        assert!((y - exact).abs().max().double_value(&[]) < 1.0);
    }

    #[test]
    fn rows_do_not_depend_on_their_neighbours_and_odd_ones_are_exact_or_nan() {
        let integers = integers(4, -127..128, &[16, 33]).to_kind(Kind::Int8);
        let (int8, weight) = layer(&integers, 0.02, None);
        let x = normal(5, &[6, 33]);
        let _ = x.get(1).fill_(0.0);
        let _ = x.get(2).fill_(-1.5);
        let _ = x.get(3).get(7).fill_(f64::NAN);
        let _ = x.get(4).get(32).fill_(f64::NEG_INFINITY);
        let _ = x.get(5).fill_(1e30);
        let y = int8.forward(&x);
        let alone = int8.forward(&x.narrow(0, 0, 1));
        assert_eq!(y.narrow(0, 0, 1), alone);
        let exact = x.matmul(&weight.transpose(0, 1));
        for row in [1, 2] {
            assert!((y.get(row) - exact.get(row)).abs().max().double_value(&[]) < 1e-4);
        }
        assert!(bool::try_from(y.narrow(0, 3, 2).isnan().all()).unwrap());
        assert!(bool::try_from(y.get(5).isfinite().all()).unwrap());
        assert_eq!(int8.forward(&x.narrow(0, 0, 0)).size(), [0, 16]);
    }
}
