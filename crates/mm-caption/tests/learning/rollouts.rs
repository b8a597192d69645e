//! Runs with `[ppo]`: their first steps, resume, several processes, adapters, and mistakes in their
//! configuration.

use crate::processes::as_processes;
use crate::{config_text, from_taught, read, run};
use mm_caption::CaptionRunConfig;
use mm_dist::ProcessGroup;
use mm_train::{Outcome, Resume, StepReport};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Tensor;

/// Two roll-outs of four steps.
const STEPS: &str = "steps = 8\nlr = 1e-3\nlog_every = 1\nema = 0.9";
/// The same with steps in proportion to gradients: AdamW's division makes steps of roundings, which differ
/// between one process and two.
const PROPORTIONAL_STEPS: &str = "steps = 8\nlr = 1e-2\neps = 1.0";
const PPO: &str = "\n[ppo]\nsamples = 3\nmax_new_tokens = 8\nepochs = 2\nminibatches = 2\nscene = 0.5\n";

fn config(folder: &Path, name: &str, train: &str, more: &str) -> CaptionRunConfig {
    let text = config_text(name, &from_taught(), train, &(PPO.to_owned() + more));
    read(folder, &text).unwrap_or_else(|error| panic!("{error}"))
}

/// Trains a new run to its end and gives its steps.
fn steps(config: &CaptionRunConfig, group: &ProcessGroup) -> Vec<StepReport> {
    let mut steps = Vec::new();
    let watch = &mut |report: &StepReport| steps.push(report.clone());
    let outcome = run(config, group, &Resume::No, &AtomicBool::new(false), watch);
    assert!(matches!(outcome, Outcome::Finished(_)), "the run did not finish");
    steps
}

fn part(report: &StepReport, name: &str) -> f64 {
    report.parts.iter().find(|(part, _)| *part == name).unwrap().1
}

fn weights(config: &CaptionRunConfig, file: &str) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(config.run.folder().join(file)).unwrap().into_iter().collect()
}

#[test]
fn a_roll_out_starts_at_a_ratio_of_1_from_the_initial_model() {
    let folder = tempfile::tempdir().unwrap();
    let steps = steps(&config(folder.path(), "first", STEPS, ""), &ProcessGroup::alone());
    // Policy and reference are one model, and values are 0.
    assert_eq!(part(&steps[0], "kl"), 0.0);
    assert_eq!(part(&steps[0], "explained_variance"), 0.0);
    for (number, report) in steps.iter().enumerate() {
        let distance = (part(report, "ratio") - 1.0).abs();
        let is_first = number % 4 == 0;
        assert!(if is_first { distance < 1e-6 } else { distance > 1e-6 }, "step {number}: {distance}");
        assert!(!is_first || part(report, "clipped") == 0.0);
        // The rewards are those of the roll-out.
        assert_eq!(part(report, "reward"), part(&steps[number - number % 4], "reward"));
    }
    assert!(part(&steps[4], "kl") > 0.0);
    assert!((0.0..3.0).contains(&part(&steps[0], "entropy")) && part(&steps[0], "length") > 2.0);
}

#[test]
fn a_run_that_is_interrupted_within_a_roll_out_ends_it_and_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let [straight, broken] = ["straight", "broken"].map(|name| config(folder.path(), name, STEPS, ""));
    let group = ProcessGroup::alone();
    let whole = steps(&straight, &group);

    let interrupt = AtomicBool::new(false);
    let mut parts = Vec::new();
    let outcome = run(&broken, &group, &Resume::No, &interrupt, &mut |report| {
        interrupt.fetch_or(report.step == 2, Ordering::Relaxed);
        parts.push(report.clone());
    });
    let Outcome::Interrupted(checkpoint) = outcome else { panic!("the run was not interrupted") };
    assert!(checkpoint.ends_with("step-4"), "{}", checkpoint.display());
    let resumed = run(&broken, &group, &Resume::Latest, &AtomicBool::new(false), &mut |report| {
        parts.push(report.clone());
    });
    assert!(matches!(resumed, Outcome::Finished(_)), "the resumed run did not finish");

    assert_eq!(parts.len(), 8);
    for (one, other) in whole.iter().zip(&parts) {
        assert_eq!((one.loss, &one.parts), (other.loss, &other.parts), "step {}", one.step);
    }
    for file in ["model/model.safetensors", "checkpoints/latest/optimizer.safetensors"] {
        let read = |config: &CaptionRunConfig| std::fs::read(config.run.folder().join(file)).unwrap();
        assert_eq!(read(&straight), read(&broken), "{file}");
    }
    // The value head is trained, and is no part of the model.
    let is_of_head = |name: &String| name.starts_with("value_head.");
    assert_eq!(
        weights(&broken, "checkpoints/latest/model.safetensors").keys().filter(|n| is_of_head(n)).count(),
        2
    );
    assert!(!weights(&broken, "model/model.safetensors").keys().any(is_of_head));
}

#[test]
fn two_processes_take_the_steps_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let [alone, together] =
        ["alone", "together"].map(|name| config(folder.path(), name, PROPORTIONAL_STEPS, ""));
    let one = steps(&alone, &ProcessGroup::alone());
    let both = as_processes(2, |group| steps(&together, group));
    let near = |a: f64, b: f64| (a - b).abs() < 1e-3 * (1.0 + b.abs());
    for (number, one) in one.iter().enumerate() {
        for two in both.iter().map(|steps| &steps[number]) {
            assert!(near(two.loss, one.loss), "step {number}: {} is not {}", two.loss, one.loss);
            assert!(near(two.gradient_norm, one.gradient_norm), "step {number}: {two:?} is not {one:?}");
            for ((name, two), (_, one)) in two.parts.iter().zip(&one.parts) {
                assert!(near(*two, *one), "step {number}, {name}: {two} is not {one}");
            }
        }
    }
}

#[test]
fn adapters_are_trained_with_a_value_head_and_saved_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let lora = "\n[lora]\nrank = 2\ntargets = [\"c_attn\"]\n";
    let config = config(folder.path(), "adapters", STEPS, lora);
    let steps = steps(&config, &ProcessGroup::alone());
    assert_eq!(part(&steps[0], "kl"), 0.0);
    assert!(part(&steps[4], "kl") > 0.0);
    let adapters = weights(&config, "model/adapter/adapter_model.safetensors");
    assert!(adapters.keys().all(|name| name.contains(".lora_")), "{:?}", adapters.keys());
    let trained = weights(&config, "checkpoints/latest/model.safetensors");
    assert_eq!(trained.len(), adapters.len() + 2);
}

#[test]
fn mistakes_in_the_configuration_name_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let from = "[model]\nfrom = \"nowhere\"\n";
    let error = |model: &str, train: &str, more: &str| {
        read(folder.path(), &config_text("wrong", model, train, more)).unwrap_err().to_string()
    };
    let with = |key: &str| PPO.replace("samples = 3", &format!("samples = 3\n{key}"));
    let steps = |more: &str| format!("steps = 8\nlr = 1e-3\n{more}");
    for (model, train, more, expected) in [
        (crate::NEW, steps(""), PPO.to_owned(), "`model.from`: missing"),
        (from, steps(""), with("kl_coef = -1"), "`ppo.kl_coef`: must be at least 0, is -1"),
        (from, steps(""), with("clip = 1.5"), "`ppo.clip`: must be above 0 and below 1, is 1.5"),
        (from, steps(""), with("gamma = 2"), "`ppo.gamma`: must be from 0 to 1, is 2"),
        (from, steps(""), with("cider_d = 0.0").replace("0.5", "0.0"), "no reward has a weight"),
        (from, steps(""), PPO.replace("epochs = 2", "epochs = 0"), "`ppo.epochs`: must be at least 1"),
        (from, steps(""), PPO.replace("s = 2", "s = 5"), "`ppo.minibatches`: 5 does not divide"),
        (from, steps(""), PPO.to_owned() + "\n[scst]\n", "`ppo`: `[scst]` is set as well"),
        (from, steps("accumulate = 2"), PPO.to_owned(), "`train.accumulate`: must be 1 with [ppo]"),
        (from, "lr = 1e-3\nepochs = 1.0".to_owned(), PPO.to_owned(), "set `train.steps` with [ppo], 4 for"),
        (from, steps(""), with("temperature = 0.5"), "temperature"),
    ] {
        let error = error(model, &train, &more);
        assert!(error.contains("tiny.toml:") && error.contains(expected), "{error} is not {expected}");
    }
    let dropout = PPO.to_owned() + "\n[lora]\ntargets = [\"c_attn\"]\ndropout = 0.1\n";
    let error = error(&from_taught(), &steps(""), &dropout);
    assert!(error.contains("`lora.dropout`: must be 0 with [ppo]"), "{error}");
}
