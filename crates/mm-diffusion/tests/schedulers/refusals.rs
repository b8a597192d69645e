//! What cannot work is refused, with the numbers and what to do.

use super::{build, config, sd15};
use mm_diffusion::schedulers::{SchedulerConfig, SchedulerKind, SchedulerOptions};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// The error of building SD 1.5's scheduler of `kind` with some keys changed contains `parts`.
fn refused(kind: SchedulerKind, changes: &[(&str, Value)], steps: usize, parts: &[&str]) {
    let mut value = sd15();
    for (key, change) in changes {
        value[key] = change.clone();
    }
    let built = SchedulerConfig::new_as(value, kind)
        .and_then(|config| config.build(steps, &SchedulerOptions::default()));
    let error = built.err().unwrap_or_else(|| panic!("{kind} takes {changes:?}")).to_string();
    for part in parts {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn no_steps_and_more_steps_than_training_timesteps_are_refused() {
    for kind in SchedulerKind::ALL {
        refused(kind, &[], 0, &["0 steps"]);
        refused(kind, &[], 1_000_000_000_000, &["1000000000000 steps"]);
    }
    for kind in [SchedulerKind::Ddpm, SchedulerKind::Ddim, SchedulerKind::Pndm] {
        refused(kind, &[], 1001, &["1001 steps", "1000"]);
    }
    refused(SchedulerKind::UniPc, &[], 1000, &["1000 steps", "999"]);
    refused(SchedulerKind::Lcm, &[], 51, &["51 steps", "50"]);
    // Between the training timesteps there is room for more.
    assert_eq!(build(&config(SchedulerKind::Euler, &[]), 1500).timesteps().len(), 1500);
}

#[test]
fn an_offset_past_the_training_timesteps_is_refused() {
    refused(SchedulerKind::Ddim, &[("steps_offset", json!(300))], 4, &["1050", "steps_offset (300)"]);
    refused(SchedulerKind::Ddim, &[], 1000, &["timestep 1000", "steps_offset"]);
}

#[test]
fn epsilon_with_zero_terminal_snr_is_refused() {
    let zero = [("rescale_betas_zero_snr", json!(true)), ("timestep_spacing", json!("trailing"))];
    for kind in [SchedulerKind::Ddim, SchedulerKind::Ddpm, SchedulerKind::Lcm] {
        refused(kind, &zero, 4, &["timestep 999", "v_prediction"]);
    }
    // Its sigma is large but finite.
    assert!(build(&config(SchedulerKind::Euler, &zero), 4).sigmas()[0] > 4000.0);
}

#[test]
fn a_prediction_type_that_the_class_does_not_know_is_refused() {
    let sample = [("prediction_type", json!("sample"))];
    refused(SchedulerKind::Pndm, &sample, 4, &["sample", "epsilon, v_prediction"]);
    refused(SchedulerKind::EulerAncestral, &sample, 4, &["sample", "epsilon, v_prediction"]);
    let flow = [("prediction_type", json!("flow_prediction"))];
    refused(SchedulerKind::Ddim, &flow, 4, &["flow_prediction", "epsilon, sample, v_prediction"]);
    let typo = [("prediction_type", json!("eps"))];
    refused(SchedulerKind::Ddim, &typo, 4, &["prediction_type", "eps", "epsilon", "v_prediction"]);
}

#[test]
fn settings_that_are_not_implemented_are_refused_by_name() {
    let cases = [
        (SchedulerKind::Euler, "use_beta_sigmas", json!(true)),
        (SchedulerKind::Ddpm, "variance_type", json!("learned_range")),
        (SchedulerKind::Ddpm, "variance_type", json!("fixed_large_log")),
        (SchedulerKind::DpmMultistep, "algorithm_type", json!("dpmsolver")),
        (SchedulerKind::DpmMultistep, "solver_order", json!(4)),
        (SchedulerKind::UniPc, "predict_x0", json!(false)),
        (SchedulerKind::UniPc, "solver_p", json!({})),
        (SchedulerKind::UniPc, "lower_order_final", json!(false)),
        (SchedulerKind::UniPc, "shift_terminal", json!(0.1)),
        (SchedulerKind::Ddim, "beta_schedule", json!("sigmoid")),
        (SchedulerKind::Ddim, "trained_betas", json!([0.1, 0.2])),
    ];
    for (kind, key, value) in cases {
        refused(kind, &[(key, value)], 4, &[key]);
    }
    let both = [("use_karras_sigmas", json!(true)), ("use_exponential_sigmas", json!(true))];
    refused(SchedulerKind::Euler, &both, 4, &["only one"]);
    refused(SchedulerKind::Pndm, &[("skip_prk_steps", json!(false))], 3, &["3", "skip_prk_steps"]);
    refused(SchedulerKind::Ddim, &[("beta_end", json!(1.5))], 4, &["betas", "1.5"]);
}

#[test]
fn options_out_of_range_are_refused() {
    let ddim = config(SchedulerKind::Ddim, &[]);
    for eta in [-0.1, 1.1, f64::NAN] {
        let error = ddim.build(4, &SchedulerOptions { eta, ..Default::default() }).unwrap_err();
        assert!(error.to_string().contains("eta"), "{error}");
    }
    let lcm = config(SchedulerKind::Lcm, &[]);
    for strength in [0.0, 1.5, f64::NAN, 0.01] {
        let error = lcm.build(4, &SchedulerOptions { strength, ..Default::default() }).unwrap_err();
        assert!(error.to_string().contains("strength"), "{error}");
    }
}

#[test]
fn a_step_out_of_order_or_of_another_shape_is_refused() {
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let sample = ones(&[1, 4, 2, 2]);
    let mut noise = || ones(&[1, 4, 2, 2]);
    for kind in SchedulerKind::ALL {
        let value = if kind == SchedulerKind::FlowMatchEuler { json!({}) } else { sd15() };
        let mut scheduler = build(&SchedulerConfig::new_as(value, kind).unwrap(), 4);
        let calls = scheduler.timesteps().len();
        assert!(scheduler.step(&sample, calls, &sample, &mut noise).is_err(), "{kind}");
        assert!(scheduler.set_begin_index(calls).is_err(), "{kind}");
        assert!(scheduler.step(&ones(&[1, 8, 2, 2]), 0, &sample, &mut noise).is_err(), "{kind}");
    }
    let mut solver = build(&config(SchedulerKind::UniPc, &[]), 4);
    let error = solver.step(&sample, 2, &sample, &mut noise).unwrap_err().to_string();
    assert!(error.contains("call 2 where call 0 is next"), "{error}");
    let mut ancestral = build(&config(SchedulerKind::EulerAncestral, &[]), 4);
    let error = ancestral.step(&sample, 0, &sample, &mut || ones(&[2])).unwrap_err().to_string();
    assert!(error.contains("the noise is [2]"), "{error}");
}

#[test]
fn schedulers_of_two_calls_a_step_refuse_to_begin_within_one() {
    let mut heun = build(&config(SchedulerKind::Heun, &[]), 4);
    assert!(heun.set_begin_index(3).unwrap_err().to_string().contains("even"));
    let mut pndm = build(&config(SchedulerKind::Pndm, &[("skip_prk_steps", json!(false))]), 6);
    assert!(pndm.set_begin_index(2).unwrap_err().to_string().contains("skip_prk_steps"));
    assert!(pndm.set_begin_index(0).is_ok());
}
