//! The one training loop.
//!
//! A [`Task`] is a model with its data, its loss and its metrics; [`Trainer`] does everything else, the same
//! way for every task: gradient accumulation, precision, clipping, AdamW or Muon, schedules, averaged
//! weights, evaluation, logs, checkpoints and exact resume.
//!
//! # Configuration
//! One TOML is one run. [`RunConfig`], [`DataConfig`], [`TrainConfig`] and [`EvalConfig`] are the tables that
//! every task has; the task's [`TaskConfig`] holds them beside its own. [`read_config`] reads and checks all.
//!
//! # Exact resume
//! Everything a step depends on is in the checkpoint or is a function of the run's seed and the step's
//! number: weights, moments and averaged weights are stored bit for bit, [`TrainingData`] has its position,
//! and libtorch's generators are seeded anew at every step ([`mm_core::seed`]). A run killed at any moment
//! and resumed equals the run that was never killed, with the same number of threads on the same kind of
//! processor: the order of floating-point sums depends on both. A run that is resumed with others warns.
//!
//! # Several processes
//! N processes ([`mm_dist`]) train as one: each takes its slice of every batch, gradients are averaged during
//! the backward pass, and rank 0 writes logs and checkpoints. A checkpoint can be resumed with any number of
//! processes.
//!
//! # Evaluation
//! [`Task::evaluate`] gives an [`Evaluation`] for a set: metrics, tables, pictures. Training and `mm eval`
//! call it the same way; `metrics.jsonl`, TensorBoard, the printed tables, `--json` and the page
//! ([`write_page`]) are made from its value.
//!
//! # A run's folder
//! `config.toml`, `metrics.jsonl`, TensorBoard events, `checkpoints/step-N/` (`model.safetensors`,
//! `optimizer.safetensors`, `ema.safetensors`, `state.json`), the link `checkpoints/latest`, and at the end
//! `model/`. Each is written under a temporary name, synced and renamed.
//!
//! # To extend
//! A new task is one file that implements [`Task`]; see `mm-clip/src/task.rs`, `mm/examples/classifier` and
//! `docs/extending.md`.

mod agree;
mod check;
mod checkpoint;
mod compute;
mod config;
mod duration;
mod ema;
mod error;
mod eval_set;
mod evaluation;
mod log;
mod micro_batch;
mod page;
mod precision;
mod resume;
mod run;
mod task;
mod tensorboard;
mod trainer;
mod training_data;
mod weight_copy;

pub use agree::agree;
pub use check::{CheckReport, check};
pub use config::{
    DataConfig, EvalConfig, OptimizerKind, Pipeline, RunConfig, Shared, Supports, TaskConfig, TrainConfig,
    read_config,
};
pub use duration::resolve_steps;
pub use ema::Ema;
pub use error::{Error, Result};
pub use eval_set::{EvalContext, EvalSet, ReadReport, gather};
pub use evaluation::{Cell, Evaluation, Figure, Metric, Plot, Section, SectionRow, Table};
pub use micro_batch::MicroBatch;
pub use page::write_page;
pub use precision::resolve_precision;
pub use resume::Resume;
pub use run::{RunFolder, changed_keys};
pub use task::{Loss, NoProgress, Progress, Task, TaskContext};
pub use trainer::{Event, Outcome, Run, StepReport, Trainer};
pub use training_data::TrainingData;
pub use weight_copy::WeightCopy;
