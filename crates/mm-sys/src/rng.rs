//! States of random number generators.

use crate::error::{Result, check, made};
use std::ffi::{c_char, c_int};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_generator_state(device: c_int, index: c_int, out: *mut *mut C_tensor) -> *mut c_char;
    fn mm_set_generator_state(device: c_int, index: c_int, state: *const C_tensor) -> *mut c_char;
}

/// The state of libtorch's generator of a device: after [`RngState::restore`] it draws the same numbers as
/// after [`RngState::of`].
#[derive(Debug)]
pub struct RngState {
    device: Device,
    /// The bytes of the generator.
    state: Tensor,
}

impl RngState {
    /// The current state of the generator of `device`.
    ///
    /// # Errors
    /// The device is not available.
    pub fn of(device: Device) -> Result<Self> {
        let (kind, index) = parts(device);
        // SAFETY: takes two numbers; a missing device is an error of libtorch.
        let state = unsafe { made(|out| mm_generator_state(kind, index, out)) }?;
        Ok(Self { device, state })
    }

    /// Restores the generator to this state.
    ///
    /// # Errors
    /// The device is no longer available.
    pub fn restore(&self) -> Result<()> {
        let (kind, index) = parts(self.device);
        // SAFETY: the state lives through the call, which copies it.
        check(unsafe { mm_set_generator_state(kind, index, self.state.as_ptr()) })
    }
}

/// c10::DeviceType and index, -1 for the default.
fn parts(device: Device) -> (c_int, c_int) {
    match device {
        Device::Cuda(index) => (1, index as c_int),
        _ => (0, -1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn a_restored_generator_draws_the_same_again() {
        let _turn = crate::GENERATOR.lock();
        let draw = || Tensor::randn([5], (Kind::Float, Device::Cpu));
        let state = RngState::of(Device::Cpu).unwrap();
        let drawn = draw();
        assert_ne!(draw(), drawn);
        state.restore().unwrap();
        assert_eq!(draw(), drawn);
    }

    #[test]
    fn a_device_that_is_not_here_is_an_error() {
        assert!(RngState::of(Device::Cuda(77)).is_err());
    }
}
