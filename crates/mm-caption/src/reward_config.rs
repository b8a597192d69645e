//! The tables of training by rewards.

use crate::CaptionRunConfig;
use crate::rewards::RewardWeights;
use mm_core::config::{ConfigError, ConfigFile};
use serde::{Deserialize, Serialize};

/// `[scst]`: self-critical sequence training (Rennie et al. 2017). The gradient is that of the expected
/// reward of drawn captions, less a baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScstConfig {
    /// Captions drawn for each image.
    pub samples: usize,
    /// What a caption's reward is compared with.
    pub baseline: Baseline,
    /// The largest number of new tokens of a drawn caption.
    pub max_new_tokens: usize,
    /// The temperature of the draws.
    pub temperature: f64,
    /// Weight of CIDEr-D over 10, with the document frequencies of the training set.
    pub cider_d: f64,
    /// Weight of the agreement with the scene graph, 0 to 1, for `shapes`.
    pub scene: f64,
    /// Weight of the share of named objects that a reference names too, 0 to 1: one minus CHAIR-i (Rohrbach
    /// et al. 2018) on COCO's 80 classes.
    pub chair: f64,
}

/// The baseline of [`ScstConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The mean reward of the other captions drawn for the image (Luo 2020).
    #[default]
    Others,
    /// The reward of the greedy caption (Rennie et al. 2017, section 4.3).
    Greedy,
}

/// `[ppo]`: proximal policy optimization (Schulman et al. 2017) with a value of each token and a penalty on
/// the distance from the initial model, as language models learn from preferences (Ziegler et al. 2019;
/// Ouyang et al. 2022). A roll-out is the drawn captions of one batch of images; it is trained on in
/// `epochs * minibatches` steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Captions drawn for each image.
    pub samples: usize,
    /// The largest number of new tokens of a drawn caption.
    pub max_new_tokens: usize,
    /// Passes over the captions of a roll-out.
    pub epochs: usize,
    /// Parts of a roll-out's images, each a step of a pass; divides `train.batch_size`.
    pub minibatches: usize,
    /// The ratio of new to old probabilities counts up to this distance from 1.
    pub clip: f64,
    /// A value counts up to this distance from that of the roll-out.
    pub value_clip: f64,
    /// Weight of the loss of values.
    pub vf_coef: f64,
    /// Weight of the penalty: of each token's log-probability less that of the initial model.
    pub kl_coef: f64,
    /// Discount of the rewards of later tokens.
    pub gamma: f64,
    /// Discount of the errors of later values in advantages (Schulman et al. 2016, equation 16).
    pub lambda: f64,
    /// As [`ScstConfig::cider_d`].
    pub cider_d: f64,
    /// As [`ScstConfig::scene`].
    pub scene: f64,
    /// As [`ScstConfig::chair`].
    pub chair: f64,
}

impl Default for ScstConfig {
    fn default() -> Self {
        let baseline = Baseline::default();
        Self {
            samples: 5,
            baseline,
            max_new_tokens: 20,
            temperature: 1.0,
            cider_d: 1.0,
            scene: 0.0,
            chair: 0.0,
        }
    }
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            samples: 5,
            max_new_tokens: 20,
            epochs: 4,
            minibatches: 1,
            clip: 0.2,
            value_clip: 0.2,
            vf_coef: 0.1,
            kl_coef: 0.05,
            gamma: 1.0,
            lambda: 0.95,
            cider_d: 1.0,
            scene: 0.0,
            chair: 0.0,
        }
    }
}

impl ScstConfig {
    pub(crate) fn weights(&self) -> RewardWeights {
        RewardWeights { cider_d: self.cider_d, scene: self.scene, chair: self.chair }
    }

    pub(crate) fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let least = if self.baseline == Baseline::Others { 2 } else { 1 };
        let problem = format!("must be at least {least} with this baseline, is {}", self.samples);
        file.check(self.samples >= least, "scst.samples", &problem)?;
        file.check(self.max_new_tokens > 0, "scst.max_new_tokens", "must be at least 1")?;
        file.check(self.temperature > 0.0, "scst.temperature", "must be above 0")?;
        file.check(self.weights().has_any(), "scst.cider_d", "no reward has a weight")
    }
}

impl PpoConfig {
    pub(crate) fn weights(&self) -> RewardWeights {
        RewardWeights { cider_d: self.cider_d, scene: self.scene, chair: self.chair }
    }

    pub(crate) fn validate(&self, run: &CaptionRunConfig, file: &ConfigFile) -> Result<(), ConfigError> {
        file.check(run.scst.is_none(), "ppo", "`[scst]` is set as well: keep one of the two")?;
        self.validate_values(file)?;
        self.validate_run(run, file)
    }

    fn validate_values(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        for (key, count) in [
            ("samples", self.samples),
            ("max_new_tokens", self.max_new_tokens),
            ("epochs", self.epochs),
            ("minibatches", self.minibatches),
        ] {
            file.check(count > 0, &format!("ppo.{key}"), "must be at least 1")?;
        }
        let check = |key: &str, value: f64, is_valid: bool, range: &str| {
            file.check(is_valid, &format!("ppo.{key}"), format!("must be {range}, is {value}"))
        };
        check("clip", self.clip, self.clip > 0.0 && self.clip < 1.0, "above 0 and below 1")?;
        check("value_clip", self.value_clip, self.value_clip > 0.0, "above 0")?;
        check("vf_coef", self.vf_coef, self.vf_coef >= 0.0, "at least 0")?;
        check("kl_coef", self.kl_coef, self.kl_coef >= 0.0, "at least 0")?;
        check("gamma", self.gamma, (0.0..=1.0).contains(&self.gamma), "from 0 to 1")?;
        check("lambda", self.lambda, (0.0..=1.0).contains(&self.lambda), "from 0 to 1")?;
        file.check(self.weights().has_any(), "ppo.cider_d", "no reward has a weight")
    }

    /// Checks the other tables of a run with `[ppo]`.
    fn validate_run(&self, run: &CaptionRunConfig, file: &ConfigFile) -> Result<(), ConfigError> {
        let CaptionRunConfig { model, lora, train, .. } = run;
        file.check(
            model.from.is_some(),
            "model.from",
            "missing: [ppo] trains a captioner that was taught with references, and keeps near it",
        )?;
        let dropout = lora.as_ref().map_or(0.0, |lora| lora.dropout);
        file.check(
            dropout == 0.0,
            "lora.dropout",
            format!("must be 0 with [ppo], which compares log-probabilities of two passes, is {dropout}"),
        )?;
        let steps = self.epochs * self.minibatches;
        file.check(
            train.epochs.is_none(),
            "train.epochs",
            format!("set `train.steps` with [ppo], {steps} for each roll-out"),
        )?;
        file.check(
            train.accumulate == 1,
            "train.accumulate",
            "must be 1 with [ppo]: `ppo.minibatches` divides a roll-out",
        )?;
        file.check(
            train.batch_size.is_multiple_of(self.minibatches),
            "ppo.minibatches",
            format!("{} does not divide train.batch_size {}", self.minibatches, train.batch_size),
        )
    }
}
