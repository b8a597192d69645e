//! The schedulers equal those of diffusers (`data/goldens/diffusion-schedulers`, written by
//! `xtask/goldens/diffusion-schedulers.py`), and refuse what cannot work.

mod configs;
mod goldens;
mod objectives;
mod published;
mod refusals;
mod runs;
mod training;

use mm_diffusion::schedulers::{Scheduler, SchedulerConfig, SchedulerKind, SchedulerOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::{Kind, Tensor};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion-schedulers")
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(folder().join(name)).unwrap().into_iter().collect()
}

/// `scheduler/scheduler_config.json` of Stable Diffusion 1.5.
fn sd15() -> Value {
    json!({
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
    })
}

/// SD 1.5's config read by `kind`, with some keys changed.
fn config(kind: SchedulerKind, changes: &[(&str, Value)]) -> SchedulerConfig {
    let mut config = SchedulerConfig::new_as(sd15(), kind).unwrap();
    for (key, value) in changes {
        config.set(key, value.clone()).unwrap();
    }
    config
}

fn build(config: &SchedulerConfig, steps: usize) -> Box<dyn Scheduler> {
    config.build(steps, &SchedulerOptions::default()).unwrap()
}

/// The model of the goldens.
fn model(input: &Tensor, timestep: f64) -> Tensor {
    (input * 0.7 + 0.001 * timestep).sin() * 0.9
}

/// The largest difference, relative to the largest expected value where that is above 1.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let off = (found.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs().max().double_value(&[]);
    off / expected.abs().max().double_value(&[]).max(1.0)
}
