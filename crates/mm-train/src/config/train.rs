//! `[train]`: the length of a run, its batches and its optimizer.

use mm_core::config::{ConfigError, ConfigFile};
use mm_core::optim::{AdamWConfig, MuonConfig, Schedule, ScheduleKind, UpdateRule};
use mm_core::{Precision, PrecisionConfig};
use serde::{Deserialize, Serialize};

/// `[train]`: the length of a run, its batches and its optimizer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimizer steps of the whole run; 0 where `epochs` or `minutes` says it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u64,
    /// Passes over the training set, in place of `steps`; the run's own `config.toml` has the steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Minutes of training, evaluations not included, in place of `steps`: those that fit are measured when
    /// the run starts, and the run's own `config.toml` has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Samples a step, over all micro-batches and processes.
    pub batch_size: usize,
    /// Micro-batches a step; divides `batch_size`. Gradients are averaged over them, and a loss that compares
    /// samples compares those of one micro-batch.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// `"f32"`, `"bf16"` (autocast), or `"auto"`: the faster of the two, measured when the run starts and
    /// written into its `config.toml`.
    #[serde(default)]
    pub precision: PrecisionConfig,
    /// Whether each of several processes holds only its share of the moments (ZeRO, stage 1).
    #[serde(default)]
    pub shard_optimizer: bool,
    /// Whether transformers keep the inputs of their blocks alone and compute the rest again in the backward
    /// pass: less memory, a third more time, the same gradients.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// `"adamw"`, or `"muon"`: Muon for the matrices of hidden layers and AdamW for all other variables, at
    /// one learning rate.
    #[serde(default)]
    pub optimizer: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Muon's, where it differs from `lr`, which is then that of the other variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon_lr: Option<f64>,
    /// Learning rate at the end of the schedule.
    #[serde(default)]
    pub min_lr: f64,
    /// `"cosine"`, `"linear"`, `"constant"` or `"inverse_sqrt"`.
    #[serde(default)]
    pub schedule: ScheduleKind,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup: u64,
    /// Layer-wise decay of the learning rate (Clark et al. 2020; Bao et al. 2022): each group of a tower
    /// learns this many times as fast as the group behind it. 1: all alike.
    #[serde(default = "no_decay")]
    pub layer_decay: f64,
    /// Decoupled weight decay.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// AdamW's decay of the first moment.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// AdamW's epsilon.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Muon's decay of the momentum.
    #[serde(default = "default_momentum")]
    pub momentum: f64,
    /// Largest norm of all gradients together; none: not clipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_grad: Option<f64>,
    /// Decay of the averaged weights that are evaluated and saved; none: the trained weights themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Steps between checkpoints; 0: only at the end.
    #[serde(default = "default_checkpoint_every")]
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    #[serde(default = "default_keep")]
    pub keep_checkpoints: usize,
    /// Steps between lines of `metrics.jsonl`.
    #[serde(default = "default_log_every")]
    pub log_every: u64,
}

/// The optimizer of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW for all variables.
    #[default]
    AdamW,
    /// Muon for the matrices of hidden layers.
    Muon,
}

fn one() -> usize {
    1
}
fn no_decay() -> f64 {
    1.0
}
fn default_weight_decay() -> f64 {
    0.2
}
fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.98
}
fn default_eps() -> f64 {
    1e-6
}
fn default_momentum() -> f64 {
    MuonConfig::default().momentum
}
fn default_checkpoint_every() -> u64 {
    1000
}
fn default_keep() -> usize {
    2
}
fn default_log_every() -> u64 {
    10
}

fn is_zero(steps: &u64) -> bool {
    *steps == 0
}

impl TrainConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A number is out of its range; the error names its key and line in `file`.
    pub fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        self.validate_length(file)?;
        self.validate_optimizer(file)?;
        let above_zero =
            |key: &str, value: usize| file.check(value > 0, &format!("train.{key}"), "must be at least 1");
        above_zero("batch_size", self.batch_size)?;
        file.check(
            self.accumulate > 0 && self.batch_size.is_multiple_of(self.accumulate),
            "train.accumulate",
            format!("{} does not divide batch_size {}", self.accumulate, self.batch_size),
        )?;
        file.check(
            self.precision != PrecisionConfig::Int8,
            "train.precision",
            "int8 is for inference only: train in f32, bf16 or auto",
        )?;
        above_zero("keep_checkpoints", self.keep_checkpoints)?;
        above_zero("log_every", self.log_every as usize)
    }

    fn validate_length(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let others = [("epochs", self.epochs, "epochs"), ("minutes", self.minutes, "minutes")];
        let mut given = others.into_iter().filter_map(|(key, length, unit)| Some((key, length?, unit)));
        let has_steps = file.get("train.steps").is_some();
        match (has_steps, given.next(), given.next()) {
            (false, None, _) => file.check(
                false,
                "train.steps",
                "missing; set it, or `train.epochs` or `train.minutes` in its place",
            ),
            (true, None, _) => {
                file.check(self.steps > 0, "train.steps", "must be at least 1")?;
                file.check(
                    self.warmup <= self.steps,
                    "train.warmup",
                    format!("{} is more than the {} steps", self.warmup, self.steps),
                )
            }
            (true, Some((key, ..)), _) => file.check(
                false,
                &format!("train.{key}"),
                "`train.steps` is set as well: keep one of the two",
            ),
            (false, Some(_), Some((key, ..))) => file.check(
                false,
                &format!("train.{key}"),
                "`train.epochs` is set as well: keep one of the two",
            ),
            (false, Some((key, length, unit)), None) => {
                let is_valid = length > 0.0 && length.is_finite();
                file.check(is_valid, &format!("train.{key}"), format!("must be above 0 {unit}, is {length}"))
            }
        }
    }

    fn validate_optimizer(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let check = |is_valid: bool, key: &str, range: &str, value: f64| {
            file.check(is_valid, &format!("train.{key}"), format!("must be {range}, is {value}"))
        };
        check(self.lr > 0.0, "lr", "above 0", self.lr)?;
        let muon_lr = self.muon_lr.unwrap_or(self.lr);
        check(muon_lr > 0.0, "muon_lr", "above 0", muon_lr)?;
        let range = format!("from 0 to lr {}", self.lr);
        check((0.0..=self.lr).contains(&self.min_lr), "min_lr", &range, self.min_lr)?;
        let decay = self.layer_decay;
        check(decay > 0.0 && decay <= 1.0, "layer_decay", "above 0 and at most 1", decay)?;
        check(self.weight_decay >= 0.0, "weight_decay", "at least 0", self.weight_decay)?;
        check((0.0..1.0).contains(&self.beta1), "beta1", "in [0, 1)", self.beta1)?;
        check((0.0..1.0).contains(&self.beta2), "beta2", "in [0, 1)", self.beta2)?;
        check(self.eps > 0.0, "eps", "above 0", self.eps)?;
        check((0.0..1.0).contains(&self.momentum), "momentum", "in [0, 1)", self.momentum)?;
        let clip = self.clip_grad.unwrap_or(1.0);
        check(clip > 0.0, "clip_grad", "above 0", clip)?;
        let ema = self.ema.unwrap_or(0.5);
        check((0.0..1.0).contains(&ema), "ema", "in [0, 1)", ema)
    }

    /// Checks that `world` processes can share each micro-batch.
    ///
    /// # Errors
    /// They cannot; the error names `train.batch_size` and its line in `file`.
    pub fn validate_for(&self, world: usize, file: &ConfigFile) -> Result<(), ConfigError> {
        let micro_batch = self.micro_batch_size();
        file.check(
            micro_batch.is_multiple_of(world),
            "train.batch_size",
            format!(
                "{world} processes cannot share batches of {micro_batch} samples (batch_size {} / \
                 accumulate {}): make it a multiple of {}",
                self.batch_size,
                self.accumulate,
                world * self.accumulate
            ),
        )
    }

    /// The same with `steps` in place of `epochs`, for a training set of `samples` samples: as many as whole
    /// batches fit into an epoch, times the epochs, rounded. The set has no length if it is a stream.
    ///
    /// # Errors
    /// The set is a stream, is smaller than a batch, or gives fewer steps than `warmup`; the error names the
    /// key and its line in `file`.
    pub fn with_steps(&self, samples: Option<usize>, file: &ConfigFile) -> Result<Self, ConfigError> {
        let Some(epochs) = self.epochs else { return Ok(self.clone()) };
        let Some(samples) = samples else {
            let problem = "`train.epochs`: the training set is a stream without a length: set `train.steps`";
            return Err(file.error("train.epochs", problem));
        };
        let batches = (samples / self.micro_batch_size()) as f64 / self.accumulate as f64;
        let steps = (batches * epochs).round() as u64;
        file.check(
            steps > 0,
            "train.epochs",
            format!("{epochs} epochs of {samples} samples are less than one batch of {}", self.batch_size),
        )?;
        file.check(
            self.warmup <= steps,
            "train.warmup",
            format!("{} is more than the {steps} steps that {epochs} epochs are", self.warmup),
        )?;
        Ok(Self { steps, epochs: None, ..self.clone() })
    }

    /// Samples of a micro-batch, over all processes.
    pub fn micro_batch_size(&self) -> usize {
        self.batch_size / self.accumulate
    }

    /// How a variable that stacks `matrices` of hidden layers is updated, in a run of `precision`.
    pub(crate) fn update_rule(&self, matrices: usize, precision: Precision) -> UpdateRule {
        match self.optimizer {
            OptimizerKind::Muon if matrices > 0 => {
                let lr_multiplier = self.muon_lr.map_or(1.0, |lr| lr / self.lr);
                let matrices = matrices as i64;
                UpdateRule::Muon(MuonConfig { momentum: self.momentum, precision, lr_multiplier, matrices })
            }
            OptimizerKind::AdamW | OptimizerKind::Muon => UpdateRule::AdamW,
        }
    }

    pub(crate) fn adamw(&self) -> AdamWConfig {
        AdamWConfig { beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay: self.weight_decay }
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            kind: self.schedule,
            lr: self.lr,
            min_lr: self.min_lr,
            warmup: self.warmup,
            steps: self.steps,
        }
    }
}
