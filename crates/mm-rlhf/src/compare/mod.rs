//! The policy beside the model that it started from: rewards, guards, drift, pictures.

mod drift;
mod evaluate;
mod guard;
mod model;
mod page;

pub(crate) use evaluate::evaluate;
pub use guard::GuardConfig;
pub(crate) use guard::GuardState;
pub use model::AlignedModel;

use crate::RewardConfig;
use mm_core::DeviceConfig;

/// What a policy is compared with, and how: from the config of its run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison<'a> {
    /// The folder or hub name of the initial model.
    pub from: &'a str,
    pub device: &'a DeviceConfig,
    /// Whether blocks compute again in the backward pass.
    pub gradient_checkpointing: bool,
    /// The rewards that are raised.
    pub reward: &'a [RewardConfig],
    pub guard: &'a GuardConfig,
    /// Steps of the sampler and guidance scale, where `guard` has none of its own.
    pub steps: usize,
    pub guidance_scale: f64,
}
