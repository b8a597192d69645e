//! Bucketed averaging of gradients.

use crate::c10d::{C10dProcessGroup, RawGroup};
use crate::error::{Result, check};
use std::ffi::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

#[repr(C)]
struct RawReducer {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn mm_reducer_new(
        group: *mut RawGroup,
        parameters: *const *const C_tensor,
        order: *const usize,
        count: usize,
        bucket_bytes: usize,
        out: *mut *mut RawReducer,
    ) -> *mut c_char;
    fn mm_reducer_free(reducer: *mut RawReducer);
    fn mm_reducer_arm(reducer: *mut RawReducer);
    fn mm_reducer_finish(
        reducer: *mut RawReducer,
        unused: *mut bool,
        waited: *mut f64,
        sending: *mut f64,
    ) -> *mut c_char;
    fn mm_reducer_arrival(reducer: *mut RawReducer, order: *mut usize);
    fn mm_reducer_lay_out(reducer: *mut RawReducer, order: *const usize, bucket_bytes: usize) -> *mut c_char;
}

/// Averages the gradients of parameters over a process group while the backward pass runs (Li et al. 2020,
/// "PyTorch Distributed", section 3.2): hooks copy each gradient into a bucket, and a full bucket is sent at
/// once.
#[derive(Debug)]
pub struct Reducer {
    raw: *mut RawReducer,
    parameters: usize,
}

// SAFETY: the shim locks what hooks, which run on a device's thread, and callers share; the handle is freed
// once.
unsafe impl Send for Reducer {}

/// The result of averaging.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    /// For each parameter, whether no process had a gradient for it; it then has none.
    pub unused: Vec<bool>,
    /// Seconds spent waiting after the backward pass.
    pub waited: f64,
    /// Seconds from the first bucket sent to the last one received.
    pub sending: f64,
}

impl Reducer {
    /// Registers hooks on `parameters`, with buckets of up to `bucket_bytes` in the `order` of the
    /// parameters, a permutation of their indices.
    ///
    /// # Errors
    /// libtorch has no memory for the buckets.
    ///
    /// # Panics
    /// `order` is not a permutation.
    pub fn new(
        group: &C10dProcessGroup,
        parameters: &[Tensor],
        order: &[usize],
        bucket_bytes: usize,
    ) -> Result<Self> {
        assert_permutation(order, parameters.len());
        let pointers: Vec<_> = parameters.iter().map(Tensor::as_ptr).collect();
        let mut raw = std::ptr::null_mut();
        // SAFETY: both arrays hold as many entries as is said, every number is that of a parameter (checked
        // above), and the shim keeps handles of its own to tensors and engine. Hooks hold the reducer weakly:
        // after it is freed they do nothing.
        check(unsafe {
            mm_reducer_new(group.raw, pointers.as_ptr(), order.as_ptr(), order.len(), bucket_bytes, &mut raw)
        })?;
        Ok(Self { raw, parameters: parameters.len() })
    }

    /// Starts averaging with the next backward pass, including gradients accumulated before it. Passes
    /// without this only accumulate.
    pub fn arm(&self) {
        // SAFETY: the reducer lives as long as `self`.
        unsafe { mm_reducer_arm(self.raw) }
    }

    /// Waits for the averages after the armed backward pass: all gradients are then the mean over the
    /// processes.
    ///
    /// # Errors
    /// Another process fails or does not respond within the timeout.
    pub fn finish(&self) -> Result<Reduced> {
        let mut reduced = Reduced { unused: vec![false; self.parameters], waited: 0.0, sending: 0.0 };
        // SAFETY: there is a flag for each parameter, and all three places outlive the call.
        check(unsafe {
            mm_reducer_finish(
                self.raw,
                reduced.unused.as_mut_ptr(),
                &mut reduced.waited,
                &mut reduced.sending,
            )
        })?;
        Ok(reduced)
    }

    /// The indices of the parameters in the order in which their gradients became ready in the last armed
    /// backward pass.
    pub fn arrival(&self) -> Vec<usize> {
        let mut order = vec![0; self.parameters];
        // SAFETY: there is a place for each parameter.
        unsafe { mm_reducer_arrival(self.raw, order.as_mut_ptr()) }
        order
    }

    /// Rebuilds the buckets in another `order`, between steps. It must be the same in all processes.
    ///
    /// # Errors
    /// libtorch has no memory for the buckets.
    ///
    /// # Panics
    /// `order` is not a permutation.
    pub fn lay_out(&self, order: &[usize], bucket_bytes: usize) -> Result<()> {
        assert_permutation(order, self.parameters);
        // SAFETY: `order` holds a number for each parameter (checked above).
        check(unsafe { mm_reducer_lay_out(self.raw, order.as_ptr(), bucket_bytes) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by `mm_reducer_new` and freed once.
        unsafe { mm_reducer_free(self.raw) }
    }
}

fn assert_permutation(order: &[usize], count: usize) {
    let mut seen = vec![false; count];
    order.iter().filter(|&&index| index < count).for_each(|&index| seen[index] = true);
    assert!(
        order.len() == count && seen.into_iter().all(|seen| seen),
        "an order names each of {count} parameters once"
    );
}
