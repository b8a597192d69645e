//! What runs have in common, whichever scheduler.

use super::{build, difference, model, sd15};
use mm_diffusion::schedulers::{SchedulerConfig, SchedulerKind, SchedulerOptions};
use mm_testing::normal;
use serde_json::json;
use tch::{Kind, Tensor};

fn of(kind: SchedulerKind) -> SchedulerConfig {
    let value = if kind == SchedulerKind::FlowMatchEuler { json!({"shift": 3.0}) } else { sd15() };
    SchedulerConfig::new_as(value, kind).unwrap()
}

/// The result of 8 steps from `start` (standard normal), in its kind.
fn result(kind: SchedulerKind, start: &Tensor) -> Tensor {
    let mut scheduler = build(&of(kind), 8);
    let mut seed = 100;
    let mut noise = || {
        seed += 1;
        normal(seed, &start.size()).to_kind(start.kind())
    };
    let mut sample = start * scheduler.init_noise_sigma();
    for call in 0..scheduler.timesteps().len() {
        let output = model(&scheduler.scale_model_input(&sample, call), scheduler.timesteps()[call]);
        sample = scheduler.step(&output, call, &sample, &mut noise).unwrap();
    }
    sample
}

#[test]
fn a_model_that_knows_the_image_leads_every_scheduler_to_it() {
    let image = normal(1, &[1, 4, 4, 4]);
    for kind in SchedulerKind::ALL {
        let mut scheduler = build(&of(kind), 12);
        let mut seed = 10;
        let mut noise = || {
            seed += 1;
            normal(seed, &image.size())
        };
        let first = noise();
        let mut sample = scheduler.add_noise(&image, &first, 0);
        for call in 0..scheduler.timesteps().len() {
            // The noise that is in the sample, by what add_noise would give without an image, and without
            // noise.
            let weight = |image: &Tensor, noise: &Tensor| scheduler.add_noise(image, noise, call);
            let (zero, one) = (image.zeros_like(), image.ones_like());
            let (alpha, sigma) = (weight(&one, &zero), weight(&zero, &one));
            let epsilon = (&sample - &alpha * &image) / &sigma;
            let output = match kind {
                SchedulerKind::FlowMatchEuler => epsilon - &image,
                _ => epsilon,
            };
            let original = scheduler.pred_original_sample(&output, call, &sample);
            assert!(difference(&original, &image) < 1e-3, "{kind} at call {call}");
            sample = scheduler.step(&output, call, &sample, &mut noise).unwrap();
        }
        // The classes over alphas_cumprod end at the first training timestep, not at 0.
        let end = if scheduler.sigmas().is_empty() { 0.15 } else { 1e-3 };
        assert!(difference(&sample, &image) < end, "{kind}: {}", difference(&sample, &image));
    }
}

#[test]
fn a_step_returns_the_kind_of_its_sample() {
    let start = normal(2, &[1, 4, 2, 2]);
    for kind in SchedulerKind::ALL {
        let half = result(kind, &start.to_kind(Kind::BFloat16));
        assert_eq!(half.kind(), Kind::BFloat16, "{kind}");
        assert!(difference(&half, &result(kind, &start)) < 0.2, "{kind}");
    }
}

#[test]
fn an_image_does_not_depend_on_the_others_of_its_batch() {
    let start = normal(3, &[3, 4, 2, 2]);
    let without_noise = SchedulerKind::ALL.into_iter().filter(|kind| {
        !matches!(kind, SchedulerKind::Ddpm | SchedulerKind::EulerAncestral | SchedulerKind::Lcm)
    });
    for kind in without_noise {
        let all = result(kind, &start);
        let alone = result(kind, &start.narrow(0, 1, 1));
        assert!(difference(&alone, &all.narrow(0, 1, 1)) < 1e-6, "{kind}");
    }
}

#[test]
fn ddim_with_eta_1_is_ddpm_where_their_steps_are_equal() {
    let (sample, output) = (normal(4, &[1, 4, 2, 2]), normal(5, &[1, 4, 2, 2]));
    let options = SchedulerOptions { eta: 1.0, ..Default::default() };
    let mut ddim = of(SchedulerKind::Ddim).build(10, &options).unwrap();
    let mut ddpm = build(&of(SchedulerKind::Ddpm), 10);
    for call in 0..9 {
        let mut noise = || normal(6, &[1, 4, 2, 2]);
        let a = ddim.step(&output, call, &sample, &mut noise).unwrap();
        let b = ddpm.step(&output, call, &sample, &mut noise).unwrap();
        assert!(difference(&a, &b) < 1e-5, "call {call}");
    }
}
