//! Losses and gradients of the objectives equal those of diffusers and of their definitions
//! (`data/goldens/diffusion-objectives`, written by `xtask/goldens/diffusion-objectives.py`).

use super::sd15;
use mm_diffusion::schedulers::{SchedulerConfig, SchedulerKind};
use mm_diffusion::{DdpmConfig, FlowConfig};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::{Kind, Tensor};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion-objectives").join(name)
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(file(name)).unwrap().into_iter().collect()
}

/// The keys of `case` that belong to `[objective]` of the kind.
fn objective<T: serde::de::DeserializeOwned>(case: &Value) -> T {
    let mut own = case.as_object().unwrap().clone();
    own.retain(|key, _| !["kind", "prediction_type", "is_masked"].contains(&key.as_str()));
    serde_json::from_value(own.into()).unwrap()
}

/// The errors of `case` for the inputs of the goldens and a model's `output`.
fn errors(case: &Value, inputs: &BTreeMap<String, Tensor>, output: &Tensor) -> Tensor {
    let (clean, noise) = (&inputs["clean"], &inputs["noise"]);
    if case["kind"] == "flow" {
        let flow: FlowConfig = objective(case);
        let noisy = flow.noisy(clean, noise, &inputs["sigmas"]);
        return flow.errors(output, &noisy, clean, noise, &inputs["sigmas"]);
    }
    let ddpm: DdpmConfig = objective(case);
    let mut scheduler = SchedulerConfig::new_as(sd15(), SchedulerKind::Ddpm).unwrap();
    scheduler.set("prediction_type", case["prediction_type"].clone()).unwrap();
    scheduler.set("rescale_betas_zero_snr", ddpm.rescale_betas_zero_snr).unwrap();
    let schedule = scheduler.noise_schedule().unwrap();
    let prediction = scheduler.prediction_type();
    ddpm.errors(&schedule, prediction, output, clean, noise, &inputs["timesteps"])
}

/// Asserts that each image of `found` is off by less than a thousandth of its largest expected value.
fn assert_near(what: &str, found: &Tensor, expected: &Tensor) {
    let rows = |x: &Tensor| x.view([expected.size()[0], -1]).to_kind(Kind::Double);
    let (found, expected) = (rows(found), rows(expected));
    let off = (found - &expected).abs().amax([1i64].as_slice(), false);
    let most = expected.abs().amax([1i64].as_slice(), false).clamp_min(1e-12);
    let relative = (off / most).max().double_value(&[]);
    assert!(relative < 1e-3, "{what} is off by {relative}");
}

#[test]
fn losses_and_gradients_equal_diffusers() {
    let (inputs, expected) = (tensors("inputs.safetensors"), tensors("expected.safetensors"));
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(file("cases.json")).unwrap()).unwrap();
    for (number, case) in cases.iter().enumerate() {
        let output = inputs["output"].copy().set_requires_grad(true);
        let mut errors = errors(case, &inputs, &output);
        if case["is_masked"] == true {
            errors *= &inputs["mask"];
        }
        let losses = errors.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
        losses.mean(Kind::Float).backward();
        assert_near(&format!("loss of {case}"), &losses, &expected[&format!("{number}/loss")]);
        assert_near(&format!("gradient of {case}"), &output.grad(), &expected[&format!("{number}/gradient")]);
    }
    assert_eq!(cases.len(), 23);
}

#[test]
fn the_offset_is_the_same_for_all_positions_of_a_channel() {
    let (inputs, expected) = (tensors("inputs.safetensors"), tensors("expected.safetensors"));
    let config = DdpmConfig { noise_offset: 0.1, ..DdpmConfig::default() };
    let found = config.offset_noise(&inputs["noise"], &inputs["channels"]);
    assert_near("noise with an offset", &found, &expected["offset"]);
}
