//! `run.task = "rl"`: a diffusion model is moved toward a reward.
//!
//! | `rl.method` | what is differentiated | source |
//! |---|---|---|
//! | `ddpo` | probabilities of steps, by statistics of each prompt | Black et al. 2023 |
//! | `grpo` | the same, by groups of images of a prompt | Liu et al. 2025 (Flow-GRPO) |
//! | `nft` | predictions for noised images, against an older policy's | Zheng et al. 2025 (DiffusionNFT) |
//! | `rwr` | the denoising loss, weighted by rewards | Lee et al. 2023, as the baseline of DDPO |
//! | `draft`, `refl`, `alignprop` | the reward, through the last steps | see [`RlMethod`] |
//!
//! The first four take roll-outs (`rollout.rs`): images of prompts are made and rated, and several optimizer
//! steps train on them before the next. A checkpoint is written between roll-outs, so that resume is exact.

mod config;
mod forward_process;
mod item;
mod policy_gradient;
mod reward_gradient;
mod rollout;
mod task;

pub use config::{
    NftConfig, PolicyGradientConfig, RlConfig, RlMethod, RlModelConfig, RlRunConfig, RwrConfig,
};
pub use item::{PromptItem, RlBatch};
pub use reward_gradient::RewardGradientConfig;
pub use rollout::{RolloutSummary, Samples};
pub use task::RlTask;
