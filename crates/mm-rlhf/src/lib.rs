//! Rewards for generated images: what a diffusion model is moved toward, and measured by.
//!
//! A [`Reward`] gives each image one score, given the prompt it was made for. Some read pixels alone (file
//! size, aesthetics), others compare the image with the prompt:
//!
//! | `kind` | score | source |
//! |---|---|---|
//! | `clip` | cosine of image and prompt | Radford et al. 2021; HPSv2 (Wu et al. 2023) with its weights |
//! | `pick_score` | exp(logit_scale) times the cosine | Kirstain et al. 2023 |
//! | `aesthetic` | an MLP on the unit image embedding | LAION's aesthetic predictor v2, or one hidden layer |
//! | `image_reward` | an MLP on BLIP's state of `[CLS]`, standardized | Xu et al. 2023 |
//! | `jpeg_compressibility` | minus the size of a JPEG in kB | Black et al. 2023, section 5.1 |
//! | `jpeg_incompressibility` | the size of a JPEG in kB | the same |
//! | `scene` | what a judge sees, compared with the prompt of a drawn scene | [`mm_diffusion::judge()`] |
//! | `caption_factuality` | a caption of the image, beside its prompt | [`mm_caption::metrics::scenes`] |
//! | `scene_counts` | the numbers of objects that a judge expects, beside the prompt's | [`SceneCounts`] |
//! | `brightness` | the mean of the pixels | [`Brightness`] |
//!
//! A weighted sum of them is a [`RewardSum`], opened from the `[[reward]]` tables of a config:
//!
//! ```no_run
//! use mm_core::DeviceConfig;
//! use mm_rlhf::{RewardSum, RewardsConfig};
//!
//! let config: RewardsConfig = toml::from_str(r#"
//!     [[reward]]
//!     kind = "pick_score"
//!     model = "yuvalkirstain/PickScore_v1"
//!
//!     [[reward]]
//!     kind = "jpeg_compressibility"
//!     weight = 0.01
//! "#)?;
//! let rewards = RewardSum::open(&config.reward, &DeviceConfig::default())?;
//! let image = mm_image::decode(&std::fs::read("photo.jpg")?, [255; 3])?;
//! let scores = rewards.score_parts(&[image], &["a cat on a sofa"])?;
//! println!("{} of {:?}", scores.total[0], rewards.names().collect::<Vec<_>>());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Those that a model computes are also differentiable in pixels: [`Reward::differentiable`]. They follow the
//! gradient of the score back to the image, as DRaFT and AlignProp need it. Scores are computed in f32 and
//! without gradients for the reward's own weights.
//!
//! [`reward_training`] trains a reward on ratings, preferences or ranked lists (`run.task = "reward"`).
//!
//! # To extend
//!
//! A reward is a file in `rewards/` with a struct that implements [`Reward`], a variant of [`RewardConfig`]
//! that opens it, and a golden in `xtask/goldens/rlhf.py`. A reward of another crate joins a sum by
//! [`RewardSum::new`].

mod compare;
mod config;
pub mod dpo;
mod error;
mod moments;
pub mod policy;
mod reward;
pub mod reward_training;
mod rewards;
pub mod rl;
mod sum;

pub use compare::{AlignedModel, GuardConfig};
pub use config::{
    AestheticConfig, BrightnessConfig, CaptionFactualityConfig, JpegConfig, ModelRewardConfig, RewardConfig,
    RewardsConfig, SceneRewardConfig,
};
pub use dpo::{DpoRunConfig, DpoTask};
pub use error::{Error, Result};
pub use reward::{DifferentiableReward, Reward};
pub use reward_training::{RewardModel, RewardRunConfig, RewardTask};
pub use rewards::{
    AestheticReward, Brightness, CaptionFactuality, ClipReward, ImageReward, JpegSize, SceneCounts,
    SceneReward, ScoreHead,
};
pub use rl::{RlRunConfig, RlTask};
pub use sum::{RewardScores, RewardSum, WeightedReward};
