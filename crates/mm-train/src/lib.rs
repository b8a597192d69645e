//! The one training loop.
//!
//! A [`Task`] says what a batch is and what its loss is; [`train`] does the rest, the same way for every
//! model: gradient accumulation, precision, clipping, AdamW, schedules, averaged weights, evaluation, logs,
//! checkpoints and exact resume.
//!
//! # What makes resume exact
//! Everything a step depends on is in the checkpoint or is a function of the run's seed and the step's
//! number: weights, moments and averaged weights are stored bit for bit, the task stores its place in the
//! data, and libtorch's generators are seeded anew at every step ([`mm_core::seed`]). A run killed at any
//! moment and resumed equals the run that was never killed, as long as the same number of threads of the same
//! kind of processor computes it: sums are added in an order that depends on both. A run that is resumed with
//! others warns.
//!
//! # Several processes
//! N processes ([`mm_dist`]) train as one: each takes its slice of every batch, gradients are averaged while
//! the backward pass runs, and rank 0 writes logs and checkpoints. A checkpoint is whole, and goes on with
//! any number of processes.
//!
//! # A run's folder
//! `config.toml`, `metrics.jsonl`, TensorBoard events, `checkpoints/step-N/` (`model.safetensors`,
//! `optimizer.safetensors`, `ema.safetensors`, `state.json`), the link `checkpoints/latest`, and at the end
//! `model/`. Each is written under a temporary name, synced and renamed.
//!
//! # To extend
//! A new training task is one file in its model's crate that implements [`Task`]; see `mm-clip/src/task.rs`.

mod checkpoint;
mod compute;
mod config;
mod ema;
mod error;
mod log;
mod precision;
mod resume;
mod run;
mod task;
mod tensorboard;
mod trainer;

pub use config::{RunConfig, TrainConfig};
pub use ema::Ema;
pub use error::{Error, Result};
pub use precision::resolve_precision;
pub use resume::Resume;
pub use run::{RunFolder, changed_keys};
pub use task::{Loss, Metric, MicroBatch, Task};
pub use trainer::{Event, Outcome, Run, StepReport, train};
