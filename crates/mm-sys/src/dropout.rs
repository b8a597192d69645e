//! Dropout on the CPU.

use crate::error::{Result, made};
use std::ffi::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_dropout(x: *const C_tensor, probability: f64, out: *mut *mut C_tensor) -> *mut c_char;
}

/// Drops elements of `x`, of any shape, with the given probability, and divides the others by the probability
/// to keep them. The mask follows from one number of libtorch's generator and the position of each element:
/// it does not depend on threads, and nothing of it is stored for the backward pass.
///
/// # Errors
/// `x` is not f32 or bf16 on the CPU, or the probability is not from 0 (included) to 1 (excluded).
pub fn dropout(x: &Tensor, probability: f64) -> Result<Tensor> {
    // SAFETY: `x` lives through the call; what the shim does not support is an error.
    unsafe { made(|out| mm_dropout(x.as_ptr(), probability, out)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn seeded(seed: i64, x: &Tensor, probability: f64) -> Tensor {
        tch::manual_seed(seed);
        dropout(x, probability).unwrap()
    }

    #[test]
    fn elements_are_dropped_independently_at_the_given_rate() {
        let _turn = crate::GENERATOR.lock();
        let count = 400_001;
        for probability in [0.0, 0.1, 0.9] {
            let dropped = seeded(1, &Tensor::ones([count], F32), probability).eq(0.0);
            let share = |of: &Tensor| of.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            // Five standard deviations.
            let near = 5.0 * (probability * (1.0 - probability) / count as f64).sqrt();
            assert!((share(&dropped) - probability).abs() <= near);
            for lag in [1, 2, 512, 1024] {
                let (one, other) = (dropped.narrow(0, 0, count - lag), dropped.narrow(0, lag, count - lag));
                let both = share(&one.logical_and(&other));
                assert!((both - probability * probability).abs() <= near, "lag {lag}: {both}");
            }
        }
    }

    #[test]
    fn the_gradient_passes_where_elements_are_kept() {
        let _turn = crate::GENERATOR.lock();
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = Tensor::arange(3000, F32).view([3, 1000]).to_kind(kind).set_requires_grad(true);
            let y = seeded(2, &x.tr(), 0.5); // not contiguous
            assert_eq!((y.kind(), y.size()), (kind, vec![1000, 3]));
            y.sum(Kind::Float).backward();
            assert_eq!(y.detach(), (&x * x.grad()).detach().tr());
            let next = seeded(2, &x.tr(), 0.5);
            assert_eq!((&y, seeded(3, &x.tr(), 0.5) == y), (&next, false));
        }
    }

    #[test]
    fn the_mask_depends_on_the_position_alone() {
        let _turn = crate::GENERATOR.lock();
        let x = Tensor::ones([100_000], F32);
        let whole = seeded(4, &x, 0.3);
        assert_eq!(seeded(4, &x.narrow(0, 0, 5001), 0.3), whole.narrow(0, 0, 5001));
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        let by_one = seeded(4, &x, 0.3);
        tch::set_num_threads(threads);
        assert_eq!(by_one, whole);
        assert_eq!(seeded(4, &x.to_kind(Kind::BFloat16), 0.3).eq(0.0), whole.eq(0.0));
    }

    #[test]
    fn what_it_is_not_for_is_an_error() {
        let _turn = crate::GENERATOR.lock();
        assert!(dropout(&Tensor::ones([2], (Kind::Int64, Device::Cpu)), 0.5).is_err());
        assert!(dropout(&Tensor::ones([2], F32), 1.0).is_err());
        assert_eq!(dropout(&Tensor::ones([0], F32), 0.5).unwrap().size(), [0]);
    }
}
