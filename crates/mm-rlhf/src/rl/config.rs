//! The configuration of a run with `run.task = "rl"`.

use super::reward_gradient::RewardGradientConfig;
use crate::RewardConfig;
use crate::compare::{Comparison, GuardConfig};
use crate::policy::{AdvantageScale, Transition};
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::LoraConfig;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use serde::{Deserialize, Serialize};

/// A run with `run.task = "rl"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The pipeline that is trained.
    pub model: RlModelConfig,
    /// Low-rank adapters of the denoiser, which are then all that is trained; none: its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The method and its numbers.
    pub rl: RlConfig,
    /// The rewards, whose weighted sum is raised.
    pub reward: Vec<RewardConfig>,
    /// What is watched, and when the run stops.
    #[serde(default)]
    pub guard: GuardConfig,
    /// The prompts: captions of any data set, whose images are not read.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// When the held-out prompts are measured.
    #[serde(default)]
    pub eval: EvalConfig,
}

/// `[model]`: the pipeline to start from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlModelConfig {
    /// A diffusers folder or a hub name.
    pub from: String,
}

/// The methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlMethod {
    /// Policy gradient with statistics of each prompt (Black et al. 2023, "Training diffusion models with
    /// reinforcement learning").
    Ddpo,
    /// Policy gradient with advantages within groups (Liu et al. 2025, "Flow-GRPO").
    Grpo,
    /// The denoising loss, weighted by rewards (Lee et al. 2023; the baseline of DDPO).
    Rwr,
    /// Forward-process learning (Zheng et al. 2025, "DiffusionNFT").
    Nft,
    /// The gradient of the reward through the last steps (Clark et al. 2023, "Directly fine-tuning diffusion
    /// models on differentiable rewards").
    Draft,
    /// The same from one of the later steps, drawn for each batch (Xu et al. 2023, "ImageReward", section 3).
    Refl,
    /// The same through a drawn number of steps, without the gradient of earlier noise predictions
    /// (Prabhudesai et al. 2023, "Aligning text-to-image diffusion models with reward backpropagation").
    Alignprop,
}

/// `[rl]`: how the policy is moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlConfig {
    /// The method.
    pub method: RlMethod,
    /// Prompts of a roll-out, of all processes together.
    #[serde(default = "default_prompts")]
    pub prompts: usize,
    /// Images a prompt.
    #[serde(default = "default_group")]
    pub group: usize,
    /// Steps of the sampler.
    #[serde(default = "default_steps")]
    pub steps: usize,
    /// The guidance scale of sampling and training; 1: none.
    #[serde(default = "one")]
    pub guidance_scale: f64,
    /// Passes over the images of a roll-out.
    #[serde(default = "default_epochs")]
    pub epochs: usize,
    /// The weight of the distance from the initial model. Flow-GRPO's KL of steps with `ddpo` and `grpo`,
    /// where DDPO's paper has none; the mean squared difference of predictions otherwise. 0: no term.
    #[serde(default)]
    pub kl_coefficient: f64,
    /// The deviation that advantages are divided by.
    #[serde(default)]
    pub advantage_scale: AdvantageScale,
    /// The largest advantage.
    #[serde(default = "default_advantage_clip")]
    pub advantage_clip: f64,
    /// Of `ddpo` and `grpo`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy_gradient: PolicyGradientConfig,
    /// Of `nft`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nft: NftConfig,
    /// Of `rwr`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rwr: RwrConfig,
    /// Of `draft`, `refl` and `alignprop`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reward_gradient: RewardGradientConfig,
}

/// `[rl.policy_gradient]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyGradientConfig {
    /// The noise of a step; none: DDPO's (DDIM with eta 1) of a diffusion process, Flow-GRPO's of a flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<Transition>,
    /// How far the ratio of probabilities may be from 1. Log-probabilities are means over the elements of an
    /// image, so that it is small.
    pub clip: f64,
    /// Consecutive steps that have noise and are trained, the others being deterministic (MixGRPO); none: all
    /// steps, but the last of a flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// The first step of the window.
    pub window_start: usize,
    /// Roll-outs after which the window moves by one step, up to the half of the steps; 0: it stays.
    pub window_shift_every: u64,
    /// The share of steps with noise that are trained, drawn for each roll-out (DanceGRPO: 0.6).
    pub trained_share: f64,
    /// Whether the images of a prompt start from the same noise (DanceGRPO).
    pub same_noise: bool,
    /// `ddpo`: rewards of a prompt that are kept for its statistics, and the least that they are used from.
    pub statistics: [usize; 2],
}

impl Default for PolicyGradientConfig {
    fn default() -> Self {
        Self {
            noise: None,
            clip: 1e-4,
            window: None,
            window_start: 0,
            window_shift_every: 0,
            trained_share: 1.0,
            same_noise: false,
            statistics: [32, 16],
        }
    }
}

/// `[rl.nft]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NftConfig {
    /// How far the positive and the negative policy are from the old one.
    pub beta: f64,
    /// Noise levels that each image is trained at.
    pub timesteps: usize,
    /// The decay of the old policy grows by this with each roll-out.
    pub decay_rate: f64,
    /// The largest decay: the old policy is this share of itself and the rest of the new one.
    pub decay_max: f64,
}

impl Default for NftConfig {
    fn default() -> Self {
        Self { beta: 1.0, timesteps: 1, decay_rate: 0.001, decay_max: 0.5 }
    }
}

/// `[rl.rwr]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RwrConfig {
    /// Rewards that differ by this weigh 1 to 2.7.
    pub temperature: f64,
    /// Noise levels that each image is trained at.
    pub timesteps: usize,
}

impl Default for RwrConfig {
    fn default() -> Self {
        Self { temperature: 0.2, timesteps: 1 }
    }
}

/// Whether a table has its default values: it is then not written into the run's config, where the table of
/// another method would be refused.
fn is_default<T: Default + PartialEq>(table: &T) -> bool {
    *table == T::default()
}
fn default_prompts() -> usize {
    16
}
fn default_group() -> usize {
    8
}
fn default_steps() -> usize {
    10
}
fn default_epochs() -> usize {
    1
}
fn default_advantage_clip() -> f64 {
    5.0
}
fn one() -> f64 {
    1.0
}

impl RlMethod {
    /// Whether the method follows the reward's own gradient, without roll-outs.
    pub fn is_reward_gradient(self) -> bool {
        matches!(self, Self::Draft | Self::Refl | Self::Alignprop)
    }

    /// Whether the method has probabilities of steps.
    pub fn is_policy_gradient(self) -> bool {
        matches!(self, Self::Ddpo | Self::Grpo)
    }
}

impl RlConfig {
    /// Images of a roll-out.
    pub fn samples(&self) -> usize {
        self.prompts * self.group
    }

    fn validate(&self, file: &ConfigFile, batch_size: usize) -> Result<(), ConfigError> {
        let method = self.method;
        for (key, fits) in [
            ("rl.policy_gradient", method.is_policy_gradient()),
            ("rl.nft", method == RlMethod::Nft),
            ("rl.rwr", method == RlMethod::Rwr),
            ("rl.reward_gradient", method.is_reward_gradient()),
        ] {
            file.check(fits || file.get(key).is_none(), key, "is of another method than `rl.method`")?;
        }
        file.check(self.steps > 0, "rl.steps", "must be at least 1")?;
        let guidance = self.guidance_scale;
        file.check(guidance >= 1.0, "rl.guidance_scale", format!("must be at least 1, is {guidance}"))?;
        file.check(self.kl_coefficient >= 0.0, "rl.kl_coefficient", "must be at least 0")?;
        file.check(self.advantage_clip > 0.0, "rl.advantage_clip", "must be above 0")?;
        if method.is_reward_gradient() {
            return self.reward_gradient.validate(file, method, self.steps);
        }
        file.check(self.prompts > 0, "rl.prompts", "must be at least 1")?;
        file.check(self.epochs > 0, "rl.epochs", "must be at least 1")?;
        let compares = "must be at least 2: the images of a prompt are compared with each other";
        file.check(
            self.group > 1 || method == RlMethod::Ddpo || method == RlMethod::Rwr,
            "rl.group",
            compares,
        )?;
        let group = self.group;
        let divides = format!("{group} images a prompt do not divide `train.batch_size` {batch_size}");
        file.check(group > 0 && batch_size.is_multiple_of(group), "rl.group", divides)?;
        let samples = self.samples();
        let fills = format!(
            "{} prompts of {group} images are {samples}: no multiple of `train.batch_size` {batch_size}",
            self.prompts
        );
        file.check(samples.is_multiple_of(batch_size), "rl.prompts", fills)?;
        self.validate_method(file)
    }

    fn validate_method(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let gradient = &self.policy_gradient;
        file.check(gradient.clip > 0.0, "rl.policy_gradient.clip", "must be above 0")?;
        let share = gradient.trained_share;
        let from_0 = format!("must be above 0 and at most 1, is {share}");
        file.check(share > 0.0 && share <= 1.0, "rl.policy_gradient.trained_share", from_0)?;
        let window = gradient.window.unwrap_or(1);
        let within = format!(
            "{window} steps from {} on do not fit into {} steps, of which a flow's last has no noise",
            gradient.window_start, self.steps
        );
        file.check(
            window > 0 && gradient.window_start + window <= self.steps,
            "rl.policy_gradient.window",
            within,
        )?;
        let [kept, least] = gradient.statistics;
        file.check(
            kept >= least && least > 1,
            "rl.policy_gradient.statistics",
            "must be [most, least >= 2]",
        )?;
        let nft = &self.nft;
        file.check(nft.beta > 0.0, "rl.nft.beta", "must be above 0")?;
        file.check(nft.timesteps > 0, "rl.nft.timesteps", "must be at least 1")?;
        file.check((0.0..1.0).contains(&nft.decay_max), "rl.nft.decay_max", "must be from 0 to below 1")?;
        file.check(nft.decay_rate >= 0.0, "rl.nft.decay_rate", "must be at least 0")?;
        let rwr = &self.rwr;
        file.check(rwr.temperature > 0.0, "rl.rwr.temperature", "must be above 0")?;
        file.check(rwr.timesteps > 0, "rl.rwr.timesteps", "must be at least 1")
    }
}

impl RlRunConfig {
    /// What the policy is compared with and rated by.
    pub(super) fn comparison(&self) -> Comparison<'_> {
        Comparison {
            from: &self.model.from,
            device: &self.run.device,
            gradient_checkpointing: self.train.gradient_checkpointing,
            reward: &self.reward,
            guard: &self.guard,
            steps: self.rl.steps,
            guidance_scale: self.rl.guidance_scale,
        }
    }
}

impl TaskConfig for RlRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        if let Some(lora) = &self.lora {
            lora.validate(file)?;
            let drops = "must be 0: the policy that is trained would not be the one that made the images";
            file.check(lora.dropout == 0.0, "lora.dropout", drops)?;
        }
        file.check(!self.reward.is_empty(), "reward", "there is none: add a [[reward]] table")?;
        self.guard.validate(file)?;
        self.rl.validate(file, self.train.batch_size)
    }
}
