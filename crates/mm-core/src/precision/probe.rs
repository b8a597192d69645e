//! Measurement of the speed of f32 and bf16 products on a device.
//!
//! Processor flags are no guide: of two processors with AVX-512 BF16 one multiplies bf16 four times as fast
//! as f32, the other at two thirds of its speed, and processors without it emulate bf16 at a twentieth.

use super::Precision;
use crate::nn::Linear;
use std::collections::BTreeMap;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Rows of the measured product: enough that the conversion of the weights takes the same small share as in a
/// real batch.
const ROWS: i64 = 512;
/// Measurements of each precision; the fastest counts, because other programs can only slow one down.
const ROUNDS: usize = 3;
/// bf16 that is slower by this factor is not measured again.
const HOPELESS: f64 = 3.0;
/// The least speedup at which bf16 is chosen.
const LEAST_GAIN: f64 = 1.1;

/// The speed of a model's matrix products on a device in each precision, in GFLOP/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionProbe {
    /// In f32.
    pub f32: f64,
    /// In bf16, conversions included.
    pub bf16: f64,
}

impl PrecisionProbe {
    /// Measures the products of a training step, forward and backward under autocast, at the shape with the
    /// most work in a model with the variables of `vs`. This takes some milliseconds for small models, some
    /// tenths of a second for large ones. `None` for a model without products.
    pub fn training(vs: &VarStore) -> Option<Self> {
        let (shape @ [output, input], device) = (largest_product(vs)?, vs.device());
        let options = (Kind::Float, device);
        let x = Tensor::ones([ROWS, input], options).set_requires_grad(true);
        let weight = Tensor::ones([output, input], options).set_requires_grad(true);
        let pass = |precision: Precision| {
            let y = precision.autocast(device, || x.linear(&weight, None::<&Tensor>));
            drop(Tensor::run_backward(&[y.sum(Kind::Float)], &[&x, &weight], false, false));
        };
        Some(measure(device, shape, 3.0, pass))
    }

    /// Measures the products of inference, with packed weights, at the same shape as
    /// [`PrecisionProbe::training`].
    pub fn inference(vs: &VarStore) -> Option<Self> {
        let (shape @ [output, input], device) = (largest_product(vs)?, vs.device());
        let operands = |precision: Precision| {
            let mut linear = Linear::from_tensors(Tensor::ones([output, input], (Kind::Float, device)), None);
            if precision != Precision::F32 {
                linear.pack(precision);
            }
            (linear, Tensor::ones([ROWS, input], (precision.kind(), device)))
        };
        let (f32, bf16) = (operands(Precision::F32), operands(Precision::Bf16));
        let pass = |precision: Precision| {
            let (linear, x) = if precision == Precision::F32 { &f32 } else { &bf16 };
            drop(linear.forward(x));
        };
        Some(mm_sys::inference_mode(|| measure(device, shape, 1.0, pass)))
    }

    /// bf16 if it is faster by at least a tenth, else f32.
    pub fn faster(&self) -> Precision {
        if self.bf16 >= LEAST_GAIN * self.f32 { Precision::Bf16 } else { Precision::F32 }
    }

    /// Logs a warning if bf16 is slower than f32.
    pub fn warn_if_bf16_is_slower(&self) {
        if self.bf16 < self.f32 {
            tracing::warn!(
                "bf16 is {:.1} times slower than f32 on this device: {:.0} and {:.0} GFLOP/s in this model's \
                 matrix products; use precision f32",
                self.f32 / self.bf16,
                self.bf16,
                self.f32
            );
        }
    }
}

/// `[output, input]` of the shape of linear layers or convolutions with the most work in total. A convolution
/// is the product of its unfolded input.
fn largest_product(vs: &VarStore) -> Option<[i64; 2]> {
    let mut work: BTreeMap<[i64; 2], i64> = BTreeMap::new();
    for (name, variable) in vs.variables() {
        let size = variable.size();
        // An embedding table is not multiplied.
        let is_table = size.len() == 2 && name.contains("embedding");
        if name.ends_with("weight") && size.len() >= 2 && !is_table {
            *work.entry([size[0], size[1..].iter().product()]).or_default() += variable.numel() as i64;
        }
    }
    work.into_iter().max_by_key(|&(_, work)| work).map(|(shape, _)| shape)
}

/// Times `pass`, which computes `products` products of [`ROWS`] rows with a weight of `shape`, alternating
/// between the precisions.
fn measure(
    device: Device,
    [output, input]: [i64; 2],
    products: f64,
    pass: impl Fn(Precision),
) -> PrecisionProbe {
    let seconds = |precision| {
        let start = Instant::now();
        pass(precision);
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
        start.elapsed().as_secs_f64()
    };
    // The first pass of each builds kernels and allocates memory.
    let (mut f32, first_bf16) =
        (seconds(Precision::F32).min(seconds(Precision::F32)), seconds(Precision::Bf16));
    let mut bf16 = first_bf16;
    for _ in 0..ROUNDS {
        f32 = f32.min(seconds(Precision::F32));
        bf16 = bf16.min(seconds(Precision::Bf16));
        if bf16 > HOPELESS * f32 {
            break;
        }
    }
    let gflop = products * 2.0 * (ROWS * output * input) as f64 / 1e9;
    PrecisionProbe { f32: gflop / f32, bf16: gflop / bf16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::parameter;
    use tch::nn::Init;

    fn store(shapes: &[(&str, &[i64])]) -> VarStore {
        let vs = VarStore::new(Device::Cpu);
        for (path, dims) in shapes {
            let _ = parameter(&(vs.root() / *path), "weight", dims, Init::Const(0.0));
        }
        vs
    }

    #[test]
    fn the_shape_with_the_most_work_is_measured_and_tables_are_not() {
        let vs = store(&[
            ("token_embedding", &[5000, 64]),
            ("patch_embedding", &[64, 3, 4, 4]),
            ("a/fc1", &[96, 64]),
            ("b/fc1", &[96, 64]),
            ("head", &[128, 64]),
            ("norm", &[64]),
        ]);
        assert_eq!(
            largest_product(&vs),
            Some([96, 64]),
            "two layers of 96 x 64 are more than one of 128 x 64"
        );
        assert_eq!(largest_product(&store(&[("patch_embedding", &[64, 3, 4, 4])])), Some([64, 48]));
        assert_eq!(PrecisionProbe::training(&store(&[("norm", &[64])])), None);
    }

    #[test]
    fn both_precisions_are_measured_in_both_uses() {
        let vs = store(&[("fc1", &[48, 32])]);
        for probe in [PrecisionProbe::training(&vs), PrecisionProbe::inference(&vs)] {
            let probe = probe.unwrap();
            assert!(
                [probe.f32, probe.bf16].iter().all(|speed| speed.is_finite() && *speed > 0.0),
                "{probe:?}"
            );
        }
    }

    #[test]
    fn bf16_is_taken_only_where_it_gains() {
        let faster = |f32, bf16| PrecisionProbe { f32, bf16 }.faster();
        assert_eq!(faster(218.0, 890.0), Precision::Bf16);
        assert_eq!(faster(230.0, 150.0), Precision::F32);
        assert_eq!(faster(200.0, 210.0), Precision::F32, "a gain of 5 % is not worth the rounding");
    }
}
