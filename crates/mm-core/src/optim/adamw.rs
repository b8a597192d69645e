//! AdamW.

use crate::Result;
use mm_sys::AdamWStep;
use tch::Tensor;

/// The hyperparameters of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of the variables that
    /// [`ParamOptions::has_weight_decay`](super::ParamOptions::has_weight_decay) selects and that have two
    /// dimensions or more: biases, norms and scales have none.
    pub weight_decay: f64,
}

/// One step of AdamW (Loshchilov & Hutter 2019), fused: one pass over parameters, moments and gradients.
/// `updated` are parameters with their first and second moments; `step` is counted from 1.
pub(super) fn step(
    updated: &[(&Tensor, &Vec<Tensor>)],
    config: AdamWConfig,
    step: i64,
    lr: f64,
    divisor: Option<&Tensor>,
) -> Result<()> {
    let AdamWConfig { beta1, beta2, eps, weight_decay } = config;
    let each = |of: fn(&(&Tensor, &Vec<Tensor>)) -> Tensor| updated.iter().map(of).collect::<Vec<_>>();
    let parameters = each(|(parameter, _)| parameter.shallow_clone());
    let gradients = each(|(parameter, _)| parameter.grad());
    let first = each(|(_, moments)| moments[0].shallow_clone());
    let second = each(|(_, moments)| moments[1].shallow_clone());
    let step = AdamWStep { step, lr, beta1, beta2, weight_decay, eps };
    Ok(mm_sys::fused_adamw(&parameters, &gradients, &first, &second, divisor, step)?)
}
