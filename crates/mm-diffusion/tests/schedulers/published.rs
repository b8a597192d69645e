//! SD 1.5's config read by each class, in 4 steps: the numbers that the classes of diffusers print.

use super::{build, config};
use mm_diffusion::schedulers::{Scheduler, SchedulerConfig, SchedulerKind};
use serde_json::{Value, json};

fn check(values: &[f64], expected: &[f64], what: &str) {
    assert_eq!(values.len(), expected.len(), "{what}: {values:?}");
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 6e-4, "{what}: {values:?}");
    }
}

fn built(kind: SchedulerKind, changes: &[(&str, Value)]) -> Box<dyn Scheduler> {
    build(&config(kind, changes), 4)
}

#[test]
fn ddim_and_ddpm_lead_and_pndm_calls_its_second_timestep_twice() {
    for kind in [SchedulerKind::Ddim, SchedulerKind::Ddpm] {
        check(built(kind, &[]).timesteps(), &[751.0, 501.0, 251.0, 1.0], kind.word());
    }
    check(built(SchedulerKind::Pndm, &[]).timesteps(), &[751.0, 501.0, 501.0, 251.0, 1.0], "pndm");
}

#[test]
fn schedulers_over_sigma_go_from_end_to_end() {
    for kind in [SchedulerKind::Euler, SchedulerKind::EulerAncestral, SchedulerKind::Lms] {
        let scheduler = built(kind, &[]);
        check(scheduler.timesteps(), &[999.0, 666.0, 333.0, 0.0], kind.word());
        check(scheduler.sigmas(), &[14.6146, 2.9183, 0.9324, 0.0292, 0.0], kind.word());
        check(&[scheduler.init_noise_sigma()], &[14.6146], kind.word());
    }
    let heun = built(SchedulerKind::Heun, &[]);
    check(heun.timesteps(), &[999.0, 666.0, 666.0, 333.0, 333.0, 0.0, 0.0], "heun");
    assert_eq!(heun.order(), 2);
}

#[test]
fn euler_with_leading_spacing_starts_from_noise_and_image() {
    let scheduler = built(SchedulerKind::Euler, &[("timestep_spacing", json!("leading"))]);
    check(scheduler.timesteps(), &[751.0, 501.0, 251.0, 1.0], "leading");
    check(scheduler.sigmas(), &[4.1167, 1.6237, 0.6984, 0.0413, 0.0], "leading");
    check(&[scheduler.init_noise_sigma()], &[4.2364], "leading");
}

#[test]
fn karras_sigmas_of_euler_lie_between_the_ends_of_its_run() {
    let karras = ("use_karras_sigmas", json!(true));
    let scheduler = built(SchedulerKind::Euler, std::slice::from_ref(&karras));
    check(scheduler.timesteps(), &[999.0, 687.153, 145.939, 0.0], "karras");
    check(scheduler.sigmas(), &[14.6146, 3.1686, 0.4469, 0.0292, 0.0], "karras");
    let scheduler = built(SchedulerKind::Euler, &[("timestep_spacing", json!("leading")), karras]);
    check(scheduler.timesteps(), &[751.0, 411.415, 69.403, 1.0], "leading and karras");
    check(scheduler.sigmas(), &[4.1167, 1.2088, 0.2734, 0.0413, 0.0], "leading and karras");
}

#[test]
fn dpm_solver_and_unipc_leave_out_the_last_of_one_more_timestep() {
    for kind in [SchedulerKind::DpmMultistep, SchedulerKind::UniPc] {
        let scheduler = built(kind, &[]);
        check(scheduler.timesteps(), &[999.0, 749.0, 500.0, 250.0], kind.word());
        check(scheduler.sigmas(), &[14.6146, 4.0817, 1.6183, 0.6958, 0.0], kind.word());
        check(&[scheduler.init_noise_sigma()], &[1.0], kind.word());
    }
    let karras = built(SchedulerKind::DpmMultistep, &[("use_karras_sigmas", json!(true))]);
    check(karras.timesteps(), &[999.0, 687.0, 146.0, 0.0], "karras");
    let leading = built(SchedulerKind::DpmMultistep, &[("timestep_spacing", json!("leading"))]);
    check(leading.timesteps(), &[801.0, 601.0, 401.0, 201.0], "leading");
    check(leading.sigmas(), &[5.1344, 2.2929, 1.1682, 0.5741, 0.0], "leading");
}

#[test]
fn lcm_takes_timesteps_of_its_distilled_solver() {
    check(built(SchedulerKind::Lcm, &[]).timesteps(), &[999.0, 759.0, 499.0, 259.0], "lcm");
}

#[test]
fn flow_matching_shifts_twice() {
    let config = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0});
    let scheduler = build(&SchedulerConfig::new(config).unwrap(), 4);
    check(scheduler.timesteps(), &[1000.0, 857.6923, 602.1506, 8.9286], "shift 3");
    check(scheduler.sigmas(), &[1.0, 0.8577, 0.6022, 0.0089, 0.0], "shift 3");
}
