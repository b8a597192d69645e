//! The configuration of a run with `run.task = "dpo"`.

use crate::RewardConfig;
use crate::compare::{Comparison, GuardConfig};
use crate::rl::RlModelConfig;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::LoraConfig;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use serde::{Deserialize, Serialize};

/// A run with `run.task = "dpo"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpoRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The pipeline that is trained.
    pub model: RlModelConfig,
    /// Low-rank adapters of the denoiser, which are then all that is trained; none: its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The loss.
    #[serde(default)]
    pub dpo: DpoConfig,
    /// Rewards that images of held-out prompts are measured by; none is trained on.
    #[serde(default)]
    pub reward: Vec<RewardConfig>,
    /// What is watched, and when the run stops; without `reward` nothing is.
    #[serde(default)]
    pub guard: GuardConfig,
    /// Pairs of images with a preference, or edits: the first caption is that of the image before.
    pub data: DataConfig,
    /// Steps, batches, optimizer. A sample is a pair.
    pub train: TrainConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
}

/// `[dpo]`: Diffusion-DPO (Wallace et al. 2023, "Diffusion model alignment using direct preference
/// optimization", equation 14).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoConfig {
    /// How far the policy may go from the initial model: the more, the less.
    pub beta: f64,
    /// Whether half of `beta` counts, as in the authors' code, or all of it, as in diffusers' script: 5000
    /// halved is 2500 whole.
    pub beta_form: BetaForm,
    /// Flows: how the share of noise is drawn; as in `[objective]` of training from images.
    pub logit_mean: f64,
    /// The deviation of that draw; 0: the share is uniform.
    pub logit_std: f64,
    /// Steps of the sampler, for images of held-out prompts.
    pub steps: usize,
    /// Their guidance scale.
    pub guidance_scale: f64,
}

/// What of `dpo.beta` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaForm {
    /// Half of it: the paper's authors.
    #[default]
    Halved,
    /// All of it: diffusers.
    Whole,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self {
            beta: 5000.0,
            beta_form: BetaForm::default(),
            logit_mean: 0.0,
            logit_std: 1.0,
            steps: 20,
            guidance_scale: 1.0,
        }
    }
}

impl DpoConfig {
    /// The beta of the authors' form.
    pub(super) fn halved_beta(&self) -> f64 {
        match self.beta_form {
            BetaForm::Halved => self.beta,
            BetaForm::Whole => 2.0 * self.beta,
        }
    }
}

impl DpoRunConfig {
    /// What the policy is compared with and rated by.
    pub(super) fn comparison(&self) -> Comparison<'_> {
        Comparison {
            from: &self.model.from,
            device: &self.run.device,
            gradient_checkpointing: self.train.gradient_checkpointing,
            reward: &self.reward,
            guard: &self.guard,
            steps: self.dpo.steps,
            guidance_scale: self.dpo.guidance_scale,
        }
    }
}

impl TaskConfig for DpoRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        self.lora.as_ref().map_or(Ok(()), |lora| lora.validate(file))?;
        self.guard.validate(file)?;
        let DpoConfig { beta, logit_std, steps, guidance_scale, .. } = self.dpo;
        file.check(beta > 0.0, "dpo.beta", format!("must be above 0, is {beta}"))?;
        file.check(logit_std >= 0.0, "dpo.logit_std", format!("must be at least 0, is {logit_std}"))?;
        file.check(steps > 0, "dpo.steps", "must be at least 1")?;
        file.check(guidance_scale >= 1.0, "dpo.guidance_scale", "must be at least 1")
    }
}
