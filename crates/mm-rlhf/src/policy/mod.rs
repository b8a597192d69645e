//! The formulas of reinforcement learning for diffusion models, as functions of tensors.
//!
//! A sampler with noise is a policy. Each of its steps draws the next, less noisy image from a normal
//! distribution with a mean that depends on the model, so a step has a probability, and images with a high
//! reward can be made more probable. The methods differ in what they learn from:
//!
//! | method | learns from | parts |
//! |---|---|---|
//! | DDPO (Black et al. 2023) | steps of noisy DDIM | [`Transition::Ddim`], [`PromptStatistics`] |
//! | Flow-GRPO (Liu et al. 2025) | steps of a noisy flow | [`Transition::FlowSde`], [`group_advantages`] |
//! | CPS (Wang & Yu 2025) | the same, without excess noise | [`Transition::Cps`], [`group_advantages`] |
//! | DanceGRPO (Xue et al. 2025) | the same, other noise | [`Transition::DanceGrpo`], [`group_advantages`] |
//! | DiffusionNFT (Zheng et al. 2025) | final images | [`optimality`], [`nft_loss`], [`nft_decay`] |
//! | Diffusion-DPO (Wallace et al. 2023) | pairs of images | [`diffusion_dpo_loss`] |
//! | RWR (Black et al. 2023, section 4.2) | final images | [`rwr_weights`] |
//!
//! The first four share their loss, that of PPO ([`mm_core::loss::clipped_policy_loss`]): the ratio of the
//! probabilities of a step under the trained and the sampling policy, times the advantage of the image.
//!
//! ```
//! use mm_rlhf::policy::{AdvantageScale, Levels, Transition, group_advantages};
//! use tch::{Device, Kind, Tensor};
//!
//! // One step of two images from pure noise (share 1) to half of it.
//! let policy = Transition::Cps { noise: 0.8 };
//! let draw = || Tensor::randn([2, 3, 8, 8], (Kind::Float, Device::Cpu));
//! let (sample, velocity) = (draw(), draw());
//! let step = policy.step(&sample, &velocity, Levels { now: 1.0, next: 0.5 });
//! let next = step.sample(&draw());
//! let log_prob = policy.log_prob(&next, &step);
//! assert_eq!(log_prob.size(), [2]);
//!
//! // Both images are of one prompt; the second has the higher reward.
//! let advantages = group_advantages(&[0.2, 0.6], &[0, 0], AdvantageScale::Group, 1e-4, 5.0);
//! assert!(advantages.values[0] < 0.0 && advantages.values[1] > 0.0);
//! ```
//!
//! Everything is computed in f32, whatever the kind of the inputs: with a clip range of 1e-4 the ratio of two
//! probabilities would be noise in bf16. What a formula holds fixed (the sampled image, the old or the
//! reference policy) gets no gradient, so its inputs need no `detach`.
//!
//! # To extend
//!
//! Another noisy sampler is a variant of [`Transition`] and its three numbers in `transition.rs`; another
//! objective is a function in `objectives.rs`. Both have a golden in `xtask/goldens/rlhf-policy.py`, and a
//! policy of one step in `tests/policy/` that must reach its optimum.

mod advantages;
mod objectives;
mod sampler;
mod transition;

use tch::{Kind, Tensor};

pub use advantages::{AdvantageScale, Advantages, PromptStatistics, group_advantages};
pub use objectives::{diffusion_dpo_loss, nft_decay, nft_loss, optimality, rwr_weights};
pub(crate) use sampler::{deterministic_step, per_sample, pictures, predict, transition_of};
pub use transition::{Levels, StepDistribution, Transition};

/// The mean over the elements of each image: `[N, C, h, w]` to `[N]`, f32.
fn mean_per_image(x: &Tensor) -> Tensor {
    x.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
}
