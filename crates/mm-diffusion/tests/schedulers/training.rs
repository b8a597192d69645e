//! The noise schedule of training equals diffusers'.

use super::{difference, sd15, tensors};
use mm_diffusion::schedulers::{NoiseSchedule, SchedulerConfig, SchedulerKind};
use serde_json::json;
use tch::{Kind, Tensor};

/// The schedules of the goldens, by name.
fn schedules() -> Vec<(&'static str, NoiseSchedule)> {
    let changes = [
        ("sd15", "steps_offset", json!(1)),
        ("zero-snr", "rescale_betas_zero_snr", json!(true)),
        ("cosine", "beta_schedule", json!("squaredcos_cap_v2")),
    ];
    let schedule = |(name, key, value)| {
        let mut config = SchedulerConfig::new_as(sd15(), SchedulerKind::Ddpm).unwrap();
        config.set(key, value).unwrap();
        (name, config.noise_schedule().unwrap())
    };
    changes.map(schedule).into_iter().collect()
}

#[test]
fn alphas_noisy_samples_and_velocities_equal_diffusers() {
    let goldens = tensors("training.safetensors");
    let timesteps = &goldens["timesteps"];
    for (name, schedule) in schedules() {
        let expected = &goldens[&format!("{name}/alphas_cumprod")];
        assert!(difference(&schedule.alphas_cumprod, expected) < 1e-6, "{name}");
        assert_eq!(schedule.len(), 1000);
        // A rounding of bf16 is 0.4 %.
        for (kind, suffix, tolerance) in [(Kind::Float, "", 1e-6), (Kind::BFloat16, "-bf16", 5e-3)] {
            let (original, noise) = (goldens["original"].to_kind(kind), goldens["noise"].to_kind(kind));
            let noisy = schedule.add_noise(&original, &noise, timesteps);
            assert_eq!(noisy.kind(), kind);
            assert!(
                difference(&noisy, &goldens[&format!("{name}/noisy{suffix}")]) < tolerance,
                "{name}{suffix}"
            );
            let velocity = schedule.velocity(&original, &noise, timesteps);
            let expected = &goldens[&format!("{name}/velocity{suffix}")];
            assert!(difference(&velocity, expected) < tolerance, "{name}{suffix}");
        }
    }
}

#[test]
fn the_signal_to_noise_ratio_falls_and_ends_at_zero_where_asked_to() {
    let timesteps = Tensor::from_slice(&[0i64, 500, 999]);
    for (name, schedule) in schedules() {
        let snr: Vec<f64> = schedule.snr(&timesteps).try_into().unwrap();
        assert!(snr[0] > snr[1] && snr[1] > snr[2], "{name}: {snr:?}");
        assert_eq!(snr[2] == 0.0, name == "zero-snr", "{name}: {snr:?}");
    }
}

#[test]
fn a_flow_has_no_noise_schedule() {
    let config = SchedulerConfig::new_as(json!({}), SchedulerKind::FlowMatchEuler).unwrap();
    assert!(config.noise_schedule().unwrap_err().to_string().contains("no betas"));
}
