//! `run.task = "reward"`: training of a reward on ratings, preferences or ranked lists.
//!
//! Two kinds of model train. A CLIP scores an image and its prompt by exp(logit_scale) times their cosine, as
//! PickScore does (Kirstain et al. 2023, <https://arxiv.org/abs/2305.01569>): whole, by its projections
//! alone, or by low-rank adapters. An aesthetic model is an MLP on the embedding of a frozen CLIP, or several
//! such MLPs, each trained on a bootstrap sample of the data, which disagree most where the reward is not to
//! be trusted (Lakshminarayanan et al. 2017, <https://arxiv.org/abs/1612.01474>).
//!
//! A score depends on its own image and prompt alone: towers run as in inference, without batch statistics,
//! and images as at inference, without augmentation.

mod batch;
mod config;
mod ensemble;
mod evaluate;
mod item;
pub mod metrics;
mod model;
mod objective;
mod task;

pub use batch::RewardBatch;
pub use config::{
    AestheticModelConfig, ClipModelConfig, ObjectiveConfig, RewardModelConfig, RewardRunConfig, Trains,
};
pub use item::RewardItem;
pub use model::RewardModel;
pub use objective::Objective;
pub use task::RewardTask;
