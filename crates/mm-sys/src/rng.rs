use crate::error::{Result, check, made};
use std::ffi::{c_char, c_int};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_generator_state(device: c_int, index: c_int, out: *mut *mut C_tensor) -> *mut c_char;
    fn mm_set_generator_state(device: c_int, index: c_int, state: *const C_tensor) -> *mut c_char;
}

/// Where libtorch's generator of a device stands: what is drawn after [`RngState::restore`] is what was drawn
/// after [`RngState::of`].
#[derive(Debug)]
pub struct RngState {
    device: Device,
    /// The generator's own bytes.
    state: Tensor,
}

impl RngState {
    /// The present state of the generator that tensors on `device` are drawn from.
    ///
    /// # Errors
    /// The device is not here.
    pub fn of(device: Device) -> Result<Self> {
        let (kind, index) = parts(device);
        // SAFETY: takes two numbers; a device that is not here is an error of libtorch's.
        let state = unsafe { made(|out| mm_generator_state(kind, index, out)) }?;
        Ok(Self { device, state })
    }

    /// Takes the generator back there.
    ///
    /// # Errors
    /// The device is not here any more.
    pub fn restore(&self) -> Result<()> {
        let (kind, index) = parts(self.device);
        // SAFETY: the state lives through the call, which copies it.
        check(unsafe { mm_set_generator_state(kind, index, self.state.as_ptr()) })
    }
}

/// c10::DeviceType and the index, -1 for the only one.
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
