//! Inference mode and autocast.

use std::ffi::{c_int, c_void};
use tch::Device;

unsafe extern "C" {
    fn mm_inference_mode_enter() -> *mut c_void;
    fn mm_inference_mode_leave(guard: *mut c_void);
    fn mm_autocast_enter(device: c_int, enabled: bool, was_enabled: *mut bool, was_dtype: *mut c_int);
    fn mm_autocast_leave(device: c_int, was_enabled: bool, was_dtype: c_int);
}

/// Runs `body` in libtorch's inference mode: no graph, no version counters. Tensors created inside cannot be
/// used in training.
pub fn inference_mode<T>(body: impl FnOnce() -> T) -> T {
    struct Guard(*mut c_void);
    impl Drop for Guard {
        fn drop(&mut self) {
            // SAFETY: made by `mm_inference_mode_enter` on this thread (the guard never leaves this
            // function's frame, so guards end in the reverse order of their start, as the C++ type demands)
            // and dropped once, in a panic too.
            unsafe { mm_inference_mode_leave(self.0) }
        }
    }
    // SAFETY: takes nothing; the guard owns what it returns.
    let _guard = Guard(unsafe { mm_inference_mode_enter() });
    body()
}

/// Runs `body` under bf16 autocast on `device`: matrix products in bf16, norms, softmax and losses in f32.
pub fn autocast_bf16<T>(device: Device, body: impl FnOnce() -> T) -> T {
    with_autocast(device, true, body)
}

/// Runs `body` without autocast on `device`: operations use the types of their tensors.
pub fn without_autocast<T>(device: Device, body: impl FnOnce() -> T) -> T {
    with_autocast(device, false, body)
}

fn with_autocast<T>(device: Device, enabled: bool, body: impl FnOnce() -> T) -> T {
    struct Guard {
        device: c_int,
        was_enabled: bool,
        was_dtype: c_int,
    }
    impl Drop for Guard {
        fn drop(&mut self) {
            // SAFETY: restores thread-local flags to the values read when this guard was made, on the same
            // thread.
            unsafe { mm_autocast_leave(self.device, self.was_enabled, self.was_dtype) }
        }
    }
    let mut guard =
        Guard { device: c_int::from(matches!(device, Device::Cuda(_))), was_enabled: false, was_dtype: 0 };
    // SAFETY: 0 is c10::DeviceType::CPU and 1 is CUDA; the two out pointers are to fields of a live local.
    unsafe { mm_autocast_enter(guard.device, enabled, &mut guard.was_enabled, &mut guard.was_dtype) };
    let _guard = guard;
    body()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn autocast_computes_products_in_bf16_and_ends_with_its_closure() {
        let x = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        assert_eq!(autocast_bf16(Device::Cpu, || x.matmul(&x)).kind(), Kind::BFloat16);
        let (within, after) =
            autocast_bf16(Device::Cpu, || (without_autocast(Device::Cpu, || x.matmul(&x)), x.matmul(&x)));
        assert_eq!((within.kind(), after.kind()), (Kind::Float, Kind::BFloat16));
        assert_eq!(x.matmul(&x).kind(), Kind::Float);
    }

    #[test]
    fn inference_mode_builds_no_graph_and_ends_with_its_closure() {
        let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        assert!(!inference_mode(|| &x * 2.0).requires_grad());
        assert!((&x * 2.0).requires_grad());
    }
}
