//! The settings of each class with the class's own defaults (diffusers 0.42). A key that is missing in
//! `scheduler_config.json` takes the default of the class that reads it, and defaults differ between classes.

use super::SchedulerKind;
use serde_json::{Map, Value, json};

/// The keys that `kind` takes, with their defaults.
pub(super) fn defaults(kind: SchedulerKind) -> Map<String, Value> {
    match kind {
        SchedulerKind::Ddpm => merged([
            betas(0.0001, 0.02, "linear"),
            thresholding(),
            json!({
                "clip_sample": true,
                "clip_sample_range": 1.0,
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": false,
                "steps_offset": 0,
                "timestep_spacing": "leading",
                "variance_type": "fixed_small",
            }),
        ]),
        SchedulerKind::Ddim => merged([
            betas(0.0001, 0.02, "linear"),
            thresholding(),
            json!({
                "clip_sample": true,
                "clip_sample_range": 1.0,
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": false,
                "set_alpha_to_one": true,
                "steps_offset": 0,
                "timestep_spacing": "leading",
            }),
        ]),
        SchedulerKind::Pndm => merged([
            betas(0.0001, 0.02, "linear"),
            json!({
                "prediction_type": "epsilon",
                "set_alpha_to_one": false,
                "skip_prk_steps": false,
                "steps_offset": 0,
                "timestep_spacing": "leading",
            }),
        ]),
        SchedulerKind::Lms => merged([
            betas(0.0001, 0.02, "linear"),
            other_sigmas(),
            json!({
                "prediction_type": "epsilon",
                "steps_offset": 0,
                "timestep_spacing": "linspace",
            }),
        ]),
        SchedulerKind::Euler => merged([
            betas(0.0001, 0.02, "linear"),
            other_sigmas(),
            json!({
                "final_sigmas_type": "zero",
                "interpolation_type": "linear",
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": false,
                "steps_offset": 0,
                "timestep_spacing": "linspace",
                "timestep_type": "discrete",
            }),
        ]),
        SchedulerKind::EulerAncestral => merged([
            betas(0.0001, 0.02, "linear"),
            json!({
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": false,
                "steps_offset": 0,
                "timestep_spacing": "linspace",
            }),
        ]),
        SchedulerKind::Heun => merged([
            betas(0.00085, 0.012, "linear"),
            other_sigmas(),
            json!({
                "clip_sample": false,
                "clip_sample_range": 1.0,
                "prediction_type": "epsilon",
                "steps_offset": 0,
                "timestep_spacing": "linspace",
            }),
        ]),
        SchedulerKind::DpmMultistep => merged([
            betas(0.0001, 0.02, "linear"),
            thresholding(),
            other_sigmas(),
            flow_sigmas(),
            json!({
                "algorithm_type": "dpmsolver++",
                "euler_at_final": false,
                "final_sigmas_type": "zero",
                "lambda_min_clipped": null, // minus infinity, which JSON does not have
                "lower_order_final": true,
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": false,
                "solver_order": 2,
                "solver_type": "midpoint",
                "steps_offset": 0,
                "timestep_spacing": "linspace",
                "use_lu_lambdas": false,
                "variance_type": null,
            }),
        ]),
        SchedulerKind::UniPc => merged([
            betas(0.0001, 0.02, "linear"),
            thresholding(),
            other_sigmas(),
            flow_sigmas(),
            json!({
                "disable_corrector": [],
                "final_sigmas_type": "zero",
                "lower_order_final": true,
                "predict_x0": true,
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": false,
                "shift_terminal": null,
                "solver_order": 2,
                "solver_p": null,
                "solver_type": "bh2",
                "steps_offset": 0,
                "timestep_spacing": "linspace",
            }),
        ]),
        SchedulerKind::Lcm => merged([
            betas(0.00085, 0.012, "scaled_linear"),
            thresholding(),
            json!({
                "clip_sample": false,
                "clip_sample_range": 1.0,
                "original_inference_steps": 50,
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": false,
                "timestep_scaling": 10.0,
            }),
        ]),
        SchedulerKind::FlowMatchEuler => merged([
            other_sigmas(),
            json!({
                "base_image_seq_len": 256,
                "base_shift": 0.5,
                "invert_sigmas": false,
                "max_image_seq_len": 4096,
                "max_shift": 1.15,
                "num_train_timesteps": 1000,
                "shift": 1.0,
                "shift_terminal": null,
                "stochastic_sampling": false,
                "time_shift_type": "exponential",
                "use_dynamic_shifting": false,
            }),
        ]),
    }
}

fn betas(start: f64, end: f64, schedule: &str) -> Value {
    json!({
        "beta_end": end,
        "beta_schedule": schedule,
        "beta_start": start,
        "num_train_timesteps": 1000,
        "trained_betas": null,
    })
}

fn thresholding() -> Value {
    json!({
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
        "thresholding": false,
    })
}

/// Other spacings of the noise levels. `sigma_min` and `sigma_max` are arguments of few classes, but all of
/// these read them from the file.
fn other_sigmas() -> Value {
    json!({
        "sigma_max": null,
        "sigma_min": null,
        "use_beta_sigmas": false,
        "use_exponential_sigmas": false,
        "use_karras_sigmas": false,
    })
}

fn flow_sigmas() -> Value {
    json!({
        "flow_shift": 1.0,
        "time_shift_type": "exponential",
        "use_dynamic_shifting": false,
        "use_flow_sigmas": false,
    })
}

fn merged<const N: usize>(parts: [Value; N]) -> Map<String, Value> {
    parts
        .into_iter()
        .filter_map(|part| if let Value::Object(map) = part { Some(map) } else { None })
        .flatten()
        .collect()
}
