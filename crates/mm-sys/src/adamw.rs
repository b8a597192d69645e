//! The fused AdamW step.

use crate::error::{Result, check};
use std::ffi::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

/// The parameters of one AdamW step (Loshchilov & Hutter 2019, algorithm 2).
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// The step, counted from 1, for the bias correction of the moments.
    pub step: i64,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

unsafe extern "C" {
    fn mm_fused_adamw(
        parameters: *const *const C_tensor,
        gradients: *const *const C_tensor,
        first_moments: *const *const C_tensor,
        second_moments: *const *const C_tensor,
        count: usize,
        step: i64,
        gradient_divisor: *const C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
}

/// Updates `parameters` and both moments in place, in one pass over memory. Gradients are first divided by
/// the f32 scalar `gradient_divisor`, which clips them in the same pass.
///
/// # Errors
/// Shapes or types do not match.
///
/// # Panics
/// The slices have different lengths.
pub fn fused_adamw(
    parameters: &[Tensor],
    gradients: &[Tensor],
    first_moments: &[Tensor],
    second_moments: &[Tensor],
    gradient_divisor: Option<&Tensor>,
    step: AdamWStep,
) -> Result<()> {
    let count = parameters.len();
    let same = [gradients, first_moments, second_moments].iter().all(|tensors| tensors.len() == count);
    assert!(same, "fused_adamw needs one gradient and two moments a parameter");
    let pointers = |tensors: &[Tensor]| tensors.iter().map(Tensor::as_ptr).collect::<Vec<_>>();
    let (p, g, m, v) =
        (pointers(parameters), pointers(gradients), pointers(first_moments), pointers(second_moments));
    // SAFETY: each array holds `count` pointers to tensors that the borrowed slices keep alive through the
    // call, the divisor is null or borrowed too, and the shim keeps none of them. In-place changes go through
    // libtorch's own reference-counted storage, as with every in-place function of tch.
    check(unsafe {
        mm_fused_adamw(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            count,
            step.step,
            gradient_divisor.map_or(std::ptr::null(), Tensor::as_ptr),
            step.lr,
            step.beta1,
            step.beta2,
            step.weight_decay,
            step.eps,
        )
    })
}
