//! Every case of the goldens: timesteps and noise levels, single steps, whole runs, image-to-image.

use super::{difference, folder, model, tensors};
use mm_diffusion::schedulers::{Scheduler, SchedulerConfig, SchedulerKind, SchedulerOptions};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tch::Tensor;

const FORCED_STEPS: usize = 6;
const RUN_STEPS: usize = 20;

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    config: Value,
    options: Options,
    draws: Draws,
}

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    eta: f64,
    mu: Option<f64>,
    original_inference_steps: Option<usize>,
    strength: Option<f64>,
}

#[derive(Deserialize)]
struct Draws {
    forced: usize,
    run: usize,
}

struct Goldens {
    cases: Vec<Case>,
    inputs: BTreeMap<String, Tensor>,
    expected: BTreeMap<String, Tensor>,
}

impl Goldens {
    fn read() -> Self {
        let cases = std::fs::read_to_string(folder().join("cases.json")).unwrap();
        Self {
            cases: serde_json::from_str(&cases).unwrap(),
            inputs: tensors("inputs.safetensors"),
            expected: tensors("cases.safetensors"),
        }
    }

    /// The expected tensor of a case, if the case has it.
    fn of(&self, case: &Case, name: &str) -> Option<&Tensor> {
        self.expected.get(&format!("{}/{name}", case.name))
    }

    /// Compares each case that has `name` with what `found` returns: a tensor, and the magnitude of the terms
    /// that are rounded in it. Prints the largest differences, and fails above `tolerance`.
    fn compare(&self, name: &str, tolerance: f64, found: impl Fn(&Case) -> (Tensor, f64)) {
        let compared = self.cases.iter().filter_map(|case| {
            let expected = self.of(case, name)?;
            let (found, terms) = found(case);
            Some((difference(&(found / terms), &(expected / terms)), case.name.as_str()))
        });
        let mut compared: Vec<(f64, &str)> = compared.collect();
        compared.sort_by(|a, b| b.0.total_cmp(&a.0));
        println!("{name}: {} cases, the largest differences: {:?}", compared.len(), &compared[..5]);
        let wrong: Vec<_> = compared.iter().filter(|(off, _)| off.is_nan() || *off > tolerance).collect();
        assert!(wrong.is_empty(), "{name}: {} cases differ by more than {tolerance}: {wrong:?}", wrong.len());
    }
}

impl Case {
    fn scheduler(&self, steps: usize) -> mm_diffusion::Result<Box<dyn Scheduler>> {
        let kind: SchedulerKind = self.kind.parse().unwrap();
        let config = SchedulerConfig::new_as(self.config.clone(), kind).unwrap();
        let options = SchedulerOptions {
            eta: self.options.eta,
            mu: self.options.mu,
            original_inference_steps: self.options.original_inference_steps,
            strength: self.options.strength.unwrap_or(1.0),
        };
        config.build(steps, &options)
    }
}

/// The samples of the calls from `first`, with the model of the goldens; and the number of draws.
fn run(scheduler: &mut dyn Scheduler, noises: &Tensor, start: &Tensor, first: usize) -> (Vec<Tensor>, usize) {
    let mut drawn = 0;
    let mut noise = || {
        drawn += 1;
        noises.get(drawn as i64 - 1)
    };
    let mut samples: Vec<Tensor> = vec![];
    for call in first..scheduler.timesteps().len() {
        let sample = samples.last().unwrap_or(start).shallow_clone();
        let output = model(&scheduler.scale_model_input(&sample, call), scheduler.timesteps()[call]);
        samples.push(scheduler.step(&output, call, &sample, &mut noise).unwrap());
    }
    (samples, drawn)
}

fn largest_difference(name: &str, found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "{name}: {found:?} for {expected:?}");
    found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
}

#[test]
fn timesteps_and_noise_levels_equal_diffusers() {
    let goldens = Goldens::read();
    let (mut compared, mut of_timesteps, mut of_sigmas) = (0, 0f64, 0f64);
    for case in &goldens.cases {
        let values: Vec<f64> = goldens.of(case, "levels").unwrap().try_into().unwrap();
        let mut rest = &values[..];
        while let [steps, init_noise_sigma, timestep_count, sigma_count, tail @ ..] = rest {
            let (timesteps, tail) = tail.split_at(*timestep_count as usize);
            let (sigmas, tail) = tail.split_at(*sigma_count as usize);
            rest = tail;
            let name = format!("{} in {steps} steps", case.name);
            let scheduler = case.scheduler(*steps as usize).unwrap();
            let off = largest_difference(&name, scheduler.timesteps(), timesteps);
            assert!(off < 1e-5, "{name}: timesteps off by {off}: {:?}, {timesteps:?}", scheduler.timesteps());
            of_timesteps = of_timesteps.max(off);
            let init = largest_difference(&name, &[scheduler.init_noise_sigma()], &[*init_noise_sigma]);
            let off = largest_difference(&name, scheduler.sigmas(), sigmas).max(init);
            assert!(off < 1e-6, "{name}: sigmas off by {off}: {:?}, {sigmas:?}", scheduler.sigmas());
            of_sigmas = of_sigmas.max(off);
            compared += 1;
        }
    }
    println!("{compared} schedules: timesteps within {of_timesteps}, sigmas within {of_sigmas}");
    assert!(compared > 900, "{compared}");
}

#[test]
fn single_steps_equal_diffusers() {
    let goldens = Goldens::read();
    goldens.compare("forced", 3e-6, |case| {
        let mut scheduler = case.scheduler(FORCED_STEPS).unwrap();
        let expected = goldens.of(case, "forced").unwrap();
        let (outputs, noises) = (&goldens.inputs["outputs"], &goldens.inputs["noises"]);
        let mut drawn = 0;
        let mut noise = || {
            drawn += 1;
            noises.get(drawn - 1)
        };
        // Each step starts from the sample of diffusers, so that errors do not add up.
        let start = &goldens.inputs["start"] * scheduler.init_noise_sigma();
        let stepped = (0..scheduler.timesteps().len()).map(|call| {
            let sample = if call == 0 { start.shallow_clone() } else { expected.get(call as i64 - 1) };
            scheduler.step(&outputs.get(call as i64), call, &sample, &mut noise).unwrap()
        });
        let stepped = Tensor::stack(&stepped.collect::<Vec<_>>(), 0);
        assert_eq!(drawn as usize, case.draws.forced, "{}: draws of noise", case.name);
        (stepped, scheduler.init_noise_sigma())
    });
}

#[test]
fn whole_runs_equal_diffusers() {
    let goldens = Goldens::read();
    goldens.compare("run", 1e-4, |case| {
        let mut scheduler = case.scheduler(RUN_STEPS).unwrap();
        let start = &goldens.inputs["start"] * scheduler.init_noise_sigma();
        let (samples, drawn) = run(&mut *scheduler, &goldens.inputs["noises"], &start, 0);
        assert_eq!(drawn, case.draws.run, "{}: draws of noise", case.name);
        (Tensor::stack(&[&samples[samples.len() / 2], &samples[samples.len() - 1]], 0), 1.0)
    });
}

#[test]
fn image_to_image_equals_diffusers() {
    let goldens = Goldens::read();
    let (clean, added) = (&goldens.inputs["clean"], &goldens.inputs["added"]);
    goldens.compare("image", 1e-4, |case| {
        let mut scheduler = case.scheduler(RUN_STEPS).unwrap();
        let (third, middle) = (3 * scheduler.order(), RUN_STEPS / 2 * scheduler.order());
        let early = scheduler.add_noise(clean, added, third);
        let start = scheduler.add_noise(clean, added, middle);
        scheduler.set_begin_index(middle).unwrap();
        let (samples, _) = run(&mut *scheduler, &goldens.inputs["noises"], &start, middle);
        (Tensor::stack(&[&early, &start, samples.last().unwrap()], 0), 1.0)
    });
}

#[test]
fn a_scheduler_runs_again_after_set_begin_index() {
    let goldens = Goldens::read();
    for case in &goldens.cases {
        let mut scheduler = case.scheduler(RUN_STEPS).unwrap();
        let start = &goldens.inputs["start"] * scheduler.init_noise_sigma();
        let (first, _) = run(&mut *scheduler, &goldens.inputs["noises"], &start, 0);
        scheduler.set_begin_index(0).unwrap();
        let (again, _) = run(&mut *scheduler, &goldens.inputs["noises"], &start, 0);
        assert_eq!(first.last(), again.last(), "{}", case.name);
    }
}
