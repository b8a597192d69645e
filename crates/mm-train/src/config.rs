use mm_core::config::{ConfigError, ConfigFile};
use mm_core::optim::{AdamWConfig, Schedule, ScheduleKind};
use mm_core::{DeviceConfig, PrecisionConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// `[run]`: what the run is called, where it lives and what it computes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run's name; its folder is `out/name`.
    pub name: String,
    /// Fixes initial weights, data order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    /// The folder of all runs.
    #[serde(default = "default_out")]
    pub out: PathBuf,
    /// `"auto"`, `"cpu"` or `"cuda:N"`. Of several processes on a machine each takes a GPU of its own,
    /// counted from this one.
    #[serde(default)]
    pub device: DeviceConfig,
    /// Seconds that processes of a run wait for each other, at the start and in any exchange, before they
    /// give up: more than rank 0 takes to write a checkpoint.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: f64,
}

fn default_out() -> PathBuf {
    "runs".into()
}
/// A year: clocks run over with what is much longer.
const LONGEST_TIMEOUT: f64 = 31_536_000.0;

fn default_timeout() -> f64 {
    600.0
}

impl RunConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A number is out of its range; the error names its key and line in `source`.
    pub fn validate(&self, source: &ConfigFile) -> std::result::Result<(), ConfigError> {
        match self.timeout_seconds > 0.0 && self.timeout_seconds <= LONGEST_TIMEOUT {
            true => Ok(()),
            false => {
                let problem = format!(
                    "`run.timeout_seconds`: must be above 0 and at most {LONGEST_TIMEOUT}, is {}",
                    self.timeout_seconds
                );
                Err(source.error("run.timeout_seconds", problem))
            }
        }
    }

    /// How long processes wait for each other.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_seconds.clamp(0.0, LONGEST_TIMEOUT))
    }
}

/// `[train]`: how a model is trained, whichever it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps of the whole run.
    pub steps: u64,
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
    /// GradCache (Gao et al. 2021): a loss that compares samples compares all of a micro-batch while only
    /// this many of a process are embedded with a graph at once, at the price of embedding each twice; none:
    /// all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_cache_chunk: Option<usize>,
    /// Whether each of several processes holds only its share of AdamW's moments (ZeRO, stage 1).
    #[serde(default)]
    pub shard_optimizer: bool,
    /// Whether transformers keep the inputs of their blocks alone and compute the rest again in the backward
    /// pass: less memory, a third more time, the same gradients.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Peak learning rate.
    pub lr: f64,
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
    /// AdamW's decoupled weight decay.
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
fn default_checkpoint_every() -> u64 {
    1000
}
fn default_keep() -> usize {
    2
}
fn default_log_every() -> u64 {
    10
}

impl TrainConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A number is out of its range; the error names its key and line in `source`.
    pub fn validate(&self, source: &ConfigFile) -> std::result::Result<(), ConfigError> {
        let check = |right: bool, key: &str, problem: String| match right {
            true => Ok(()),
            false => Err(source.error(&format!("train.{key}"), format!("`train.{key}`: {problem}"))),
        };
        let (batch, parts) = (self.batch_size, self.accumulate);
        check(self.steps > 0, "steps", "must be at least 1".into())?;
        check(batch > 0, "batch_size", "must be at least 1".into())?;
        check(
            parts > 0 && batch.is_multiple_of(parts),
            "accumulate",
            format!("{parts} does not divide batch_size {batch}"),
        )?;
        let chunk = self.grad_cache_chunk.unwrap_or(1);
        check(chunk > 0, "grad_cache_chunk", "must be at least 1".into())?;
        let is_for_training = self.precision != PrecisionConfig::Int8;
        check(
            is_for_training,
            "precision",
            "int8 is for inference alone: train in f32, bf16 or auto".into(),
        )?;
        check(self.lr > 0.0, "lr", format!("must be above 0, is {}", self.lr))?;
        check(
            (0.0..=self.lr).contains(&self.min_lr),
            "min_lr",
            format!("must be from 0 to lr {}, is {}", self.lr, self.min_lr),
        )?;
        check(
            self.warmup <= self.steps,
            "warmup",
            format!("{} is more than the {} steps", self.warmup, self.steps),
        )?;
        let decay = self.layer_decay;
        check(
            decay > 0.0 && decay <= 1.0,
            "layer_decay",
            format!("must be above 0 and at most 1, is {decay}"),
        )?;
        check(
            self.weight_decay >= 0.0,
            "weight_decay",
            format!("must not be negative, is {}", self.weight_decay),
        )?;
        check((0.0..1.0).contains(&self.beta1), "beta1", format!("must be in [0, 1), is {}", self.beta1))?;
        check((0.0..1.0).contains(&self.beta2), "beta2", format!("must be in [0, 1), is {}", self.beta2))?;
        check(self.eps > 0.0, "eps", format!("must be above 0, is {}", self.eps))?;
        let clip = self.clip_grad.unwrap_or(1.0);
        check(clip > 0.0, "clip_grad", format!("must be above 0, is {clip}"))?;
        let ema = self.ema.unwrap_or(0.5);
        check((0.0..1.0).contains(&ema), "ema", format!("must be in [0, 1), is {ema}"))?;
        check(self.keep_checkpoints > 0, "keep_checkpoints", "must be at least 1".into())?;
        check(self.log_every > 0, "log_every", "must be at least 1".into())
    }

    /// Checks that `world` processes can share each micro-batch.
    ///
    /// # Errors
    /// They cannot.
    pub fn validate_for(&self, world: usize, source: &ConfigFile) -> std::result::Result<(), ConfigError> {
        let micro_batch = self.batch_size / self.accumulate;
        match micro_batch.is_multiple_of(world) {
            true => Ok(()),
            false => {
                let problem = format!(
                    "`train.batch_size`: {world} processes cannot share batches of {micro_batch} samples (batch_size {} / accumulate {}): make it a multiple of {}",
                    self.batch_size,
                    self.accumulate,
                    world * self.accumulate
                );
                Err(source.error("train.batch_size", problem))
            }
        }
    }

    pub(crate) fn optimizer(&self) -> AdamWConfig {
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
