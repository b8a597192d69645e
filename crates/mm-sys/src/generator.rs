//! Random number generators beside libtorch's own one of the process.

use crate::error::{Result, made};
use std::ffi::{c_char, c_void};
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mm_new_generator(seed: u64) -> *mut c_void;
    fn mm_free_generator(generator: *mut c_void);
    fn mm_generator_randn(
        generator: *const c_void,
        shape: *const i64,
        dims: usize,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// PyTorch's `torch.Generator` on the CPU: draws the numbers that `torch.manual_seed` with the same seed
/// gives, without touching the generator of the process.
#[derive(Debug)]
pub struct Generator(*mut c_void);

// SAFETY: the generator belongs to this value alone, and libtorch's generators are bound to no thread.
unsafe impl Send for Generator {}

impl Generator {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        // SAFETY: takes a number and gives a new generator, which `drop` frees.
        Self(unsafe { mm_new_generator(seed) })
    }

    /// The next numbers of the standard normal distribution, a contiguous tensor of f32 of this shape.
    ///
    /// # Errors
    /// A dimension is negative, or the memory is not there.
    pub fn randn(&mut self, shape: &[i64]) -> Result<Tensor> {
        // SAFETY: the generator and the shape live through the call.
        unsafe { made(|out| mm_generator_randn(self.0, shape.as_ptr(), shape.len(), out)) }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // SAFETY: made by `mm_new_generator` and freed once.
        unsafe { mm_free_generator(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_generator_draws_what_the_process_draws_after_the_same_seed() {
        let _turn = crate::GENERATOR.lock();
        let (mut own, shape) = (Generator::new(7), [2, 3, 4, 4]);
        tch::manual_seed(7);
        for _ in 0..2 {
            assert_eq!(own.randn(&shape).unwrap(), Tensor::randn(shape, (Kind::Float, Device::Cpu)));
        }
        assert!(own.randn(&[-1]).is_err());
    }
}
