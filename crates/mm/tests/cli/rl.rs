//! Runs that move diffusion models toward rewards and preferences: exact resume, two processes, the ratio of
//! probabilities, guards, and what bad input gets.

use crate::common::{failure, success};
use crate::diffusion_training::golden;
use crate::distributed::{assert_same_losses, assert_same_weights};
use crate::ranks;
use crate::resume::assert_forty_steps_equal_twenty_a_kill_and_twenty_more;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Two steps a roll-out, so that every second one is in the middle of it.
const CONFIG: &str = r#"
[run]
task = "rl"
name = "small"
seed = 7
out = "OUT"

[model]
from = "FROM"

[rl]
method = "METHOD"
prompts = 4
group = 4
steps = 4

[[reward]]
kind = "brightness"

[guard]
prompts = 4
images = 2
patience = 0

[[guard.reward]]
kind = "jpeg_incompressibility"

[data]
train = { kind = "shapes", samples = 100, size = 16, scenes = "prompts", objects = [1, 3] }
eval.held_out = { kind = "shapes", samples = 6, size = 16, scenes = "prompts", objects = [1, 3], seed = 1 }
workers = 2

[train]
steps = 40
batch_size = 8
lr = 1e-3
warmup = 2
clip_grad = 1.0
ema = 0.9
checkpoint_every = 5
log_every = 1
"#;

const LORA: &str = "\n[lora]\nrank = 2\nalpha = 3.0\ntargets = [\"to_q\", \"to_v\"]\n";

/// Writes a configuration of `method` on the pipeline `from` with the tables `more`, and runs in `folder`.
fn write(folder: &Path, method: &str, from: &str, more: &str) -> PathBuf {
    let file = folder.join("small.toml");
    let text = CONFIG.replace("OUT", folder.to_str().unwrap()).replace("METHOD", method);
    std::fs::write(&file, text.replace("FROM", &golden(from)) + more).unwrap();
    file
}

/// The logged numbers of `kind`.
fn logged(run: &Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["kind"] == kind).collect()
}

#[test]
fn ddpo_of_adapters_resumes_bit_for_bit_with_its_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let statistics = "\n[rl.policy_gradient]\nstatistics = [4, 2]\n";
    let config = write(folder.path(), "ddpo", "sd1", &[LORA, statistics].concat());
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let run = folder.path().join("straight");
    // Steps in the middle of a roll-out leave no checkpoint: the one that is due at 35 comes after 36.
    assert!(run.join("checkpoints/step-36").exists() || run.join("checkpoints/step-40").exists());
    assert!(!run.join("checkpoints/step-35").exists());
    let state = std::fs::read_to_string(run.join("checkpoints/latest/rl_state.json")).unwrap();
    assert!(state.contains("statistics"), "{state}");
    // The adapters make the merged model's image.
    let image = |model: &str, more: &[&str]| {
        let out = folder.path().join("image.png");
        let arguments = ["generate", "--model", model, "a star", "--steps", "2", "--out"];
        success(&[&arguments[..], &[out.to_str().unwrap()], more].concat());
        mm_image::decode(&std::fs::read(out).unwrap(), [255; 3]).unwrap()
    };
    let model = run.join("model");
    let adapter = model.join("adapter");
    let (merged, adapted) =
        (image(model.to_str().unwrap(), &[]), image(&golden("sd1"), &["--lora", adapter.to_str().unwrap()]));
    let off = merged.as_raw().iter().zip(adapted.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{off:?}");
}

#[test]
fn nft_of_a_flow_resumes_bit_for_bit_with_its_old_policy() {
    let folder = tempfile::tempdir().unwrap();
    let more = "\n[rl.nft]\ntimesteps = 2\ndecay_rate = 0.1\n";
    let config = write(folder.path(), "nft", "sd3", more);
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let latest = folder.path().join("straight/checkpoints/latest");
    assert!(latest.join("old_policy.safetensors").exists());
}

#[test]
fn two_processes_train_as_one() {
    for (method, from, more) in
        [("grpo", "sd3", ""), ("nft", "sd1", ""), ("rwr", "sd3", ""), ("draft", "sd1", "")]
    {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), method, from, more);
        let config = config.to_str().unwrap();
        let train = |name: &str, steps: u32| {
            let (name, steps) = (format!("run.name={name}"), format!("train.steps={steps}"));
            let arguments = ["train", config, "--set", &name, "--set", &steps, "--set", "train.ema=0.0"];
            if name.ends_with("one") {
                success(&arguments);
            } else {
                ranks::success(&arguments, 2);
            }
        };
        let run = |name: &str| folder.path().join(name);
        // One roll-out. The next is of images that are rounded to 8 bits: rewards differ by a level or two.
        ["one", "two"].into_iter().for_each(|name| train(name, 2));
        assert_same_losses(&run("one"), &run("two"));
        assert_same_weights(&run("one"), &run("two"));
        // The noise that drift is measured with is an image's own, whichever process and batch it is in.
        let drift = |name: &str| logged(&run(name), "eval")[0]["held_out/kl"].as_f64().unwrap();
        let (one, two) = (drift("one"), drift("two"));
        assert!(one > 0.0 && (one - two).abs() < 1e-2 * one, "{method}: {one} {two}");
        ["more-one", "more-two"].into_iter().for_each(|name| train(name, 6));
        let rewards = |name: &str| {
            let steps = logged(&run(name), "train");
            steps.iter().map(|step| step["reward"].as_f64().unwrap()).collect::<Vec<_>>()
        };
        for (one, two) in rewards("more-one").iter().zip(rewards("more-two")) {
            assert!((one - two).abs() < 1e-4 * one.abs(), "{method}: {one} {two}");
        }
    }
}

#[test]
fn before_the_first_update_of_a_roll_out_every_ratio_is_exactly_1() {
    for (method, from, more, precision) in [
        ("grpo", "sd3", "", "f32"),
        ("grpo", "sd3", "", "bf16"),
        ("ddpo", "sd1", LORA, "f32"),
        ("ddpo", "sd1", LORA, "bf16"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), method, from, more);
        let precision = format!("train.precision={precision}");
        let arguments = ["train", config.to_str().unwrap(), "--set", "train.steps=4", "--set", &precision];
        success(&arguments);
        let steps = logged(&folder.path().join("small"), "train");
        for step in steps.iter().step_by(2) {
            assert_eq!(step["ratio_deviation"], 0.0, "{method} {precision}: {step}");
        }
        assert!(steps[1]["ratio_deviation"].as_f64().unwrap() > 0.0, "an update changes ratios");
    }
}

#[test]
fn every_method_raises_a_simple_reward() {
    for (method, from, more) in [
        ("draft", "sd1", "\n[rl.reward_gradient]\nlast_steps = 2\n"),
        ("refl", "sd1", ""),
        ("alignprop", "sd3", ""),
        ("nft", "sd3", "\n[rl.nft]\ntimesteps = 4\n"),
        ("grpo", "sd3", "\n[rl.policy_gradient]\nclip = 0.01\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), method, from, more);
        success(&["train", config.to_str().unwrap(), "--set", "train.lr=3e-3"]);
        let evaluation = logged(&folder.path().join("small"), "eval").pop().unwrap();
        let reward = |name: &str| evaluation[name].as_f64().unwrap();
        let (before, after) = (reward("held_out/reward_before"), reward("held_out/reward"));
        assert!(after > before + 1e-3, "{method}: {before} to {after}");
    }
}

#[test]
fn gradient_checkpointing_changes_no_number_and_a_u_net_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let losses = |name: &str, checkpoints: bool| {
        let config = write(folder.path(), "alignprop", "sd3", "");
        let (name, checkpoints) =
            (format!("run.name={name}"), format!("train.gradient_checkpointing={checkpoints}"));
        let config = config.to_str().unwrap();
        success(&["train", config, "--set", "train.steps=4", "--set", &name, "--set", &checkpoints]);
        let steps = logged(&folder.path().join(name.trim_start_matches("run.name=")), "train");
        steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    for (kept, computed) in losses("kept", false).iter().zip(losses("computed", true)) {
        assert!((kept - computed).abs() < 1e-5 * kept.abs(), "{kept} {computed}");
    }
    let config = write(folder.path(), "draft", "sd1", "");
    let set = "train.gradient_checkpointing=true";
    let error = failure(&["train", config.to_str().unwrap(), "--set", set], 1);
    assert!(error.contains("is of transformers: a U-Net keeps its activations"), "{error}");
}

#[test]
fn an_exploited_reward_makes_the_guards_fall_and_the_run_stop() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "draft", "sd1", "\n[eval]\nevery = 5\n");
    let arguments =
        ["train", config.to_str().unwrap(), "--set", "train.lr=3e-2", "--set", "guard.patience=2"];
    success(&[&arguments[..], &["--set", "train.steps=400", "--set", "guard.tolerance=0.0"]].concat());
    let evaluations = logged(&folder.path().join("small"), "eval");
    let last = evaluations.last().unwrap();
    assert!(last["step"].as_u64().unwrap() < 400, "{last}");
    assert!(last["held_out/guards_fallen"].as_f64().unwrap() >= 1.0, "{last}");
    assert!(last["held_out/reward"].as_f64() > last["held_out/reward_before"].as_f64(), "{last}");
    // What is finished is kept.
    assert!(folder.path().join("small/model/model_index.json").exists());
}

#[test]
fn preferences_resume_bit_for_bit_and_raise_the_implicit_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = "kind = \"shapes\", size = 16, scenes = \"prompts\", objects = [1, 3], content = \"edits\"";
    let text = format!(
        "[run]\ntask = \"dpo\"\nname = \"small\"\nseed = 7\nout = {:?}\n\n[model]\nfrom = {:?}\n{LORA}\n\
         [dpo]\nbeta = 200.0\n\n[data]\ntrain = {{ {pairs}, samples = 100 }}\n\
         eval.unseen = {{ {pairs}, samples = 16, seed = 1 }}\nworkers = 2\n\n\
         [train]\nsteps = 40\nbatch_size = 8\nlr = 3e-3\nwarmup = 2\ncheckpoint_every = 10\nlog_every = 1\n",
        folder.path().to_str().unwrap(),
        golden("sd1")
    );
    let config = folder.path().join("small.toml");
    std::fs::write(&config, text).unwrap();
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let steps = logged(&folder.path().join("straight"), "train");
    let loss = |range: std::ops::Range<usize>| {
        steps[range].iter().map(|step| step["loss"].as_f64().unwrap()).sum::<f64>() / 10.0
    };
    assert!((steps[0]["loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-5, "{}", steps[0]);
    assert!(loss(30..40) < loss(0..10), "{} {}", loss(0..10), loss(30..40));
}

#[test]
fn bad_input_is_one_clear_line_before_any_step() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |method: &str, change: [&str; 2], more: &str, code: i32| {
        let config = write(folder.path(), method, "sd1", more);
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(change[0]), "{}", change[0]);
        std::fs::write(&config, text.replace(change[0], change[1])).unwrap();
        failure(&["train", config.to_str().unwrap()], code)
    };
    let empty = folder.path().join("empty.txt");
    std::fs::write(&empty, "\n").unwrap();
    let prompts = format!("train = {{ kind = \"prompts\", path = {:?} }}", empty.to_str().unwrap());
    let train =
        "train = { kind = \"shapes\", samples = 100, size = 16, scenes = \"prompts\", objects = [1, 3] }";
    for (method, change, more, code, expected) in [
        ("nft", ["group = 4", "group = 3"], "", 2, "`rl.group`: 3 images a prompt do not divide"),
        ("nft", ["prompts = 4\ngroup", "prompts = 3\ngroup"], "", 2, "`rl.prompts`"),
        ("grpo", ["group = 4", "group = 1"], "", 2, "`rl.group`: must be at least 2"),
        ("nft", ["", ""], "\n[rl.rwr]\ntemperature = 1.0\n", 2, "`rl.rwr`: is of another method"),
        ("best", ["", ""], "", 2, "unknown variant `best`"),
        ("draft", ["brightness", "jpeg_incompressibility"], "", 1, "is not differentiable"),
        (
            "ddpo",
            ["", ""],
            "\n[rl.policy_gradient]\nnoise = { kind = \"cps\", noise = 0.8 }\n",
            1,
            "use ddim",
        ),
        ("nft", [train, &prompts], "", 1, "empty.txt"),
        (
            "nft",
            ["[[reward]]\nkind = \"brightness\"", "[[reward]]\nkind = \"scene\"\nmodel = \"none\""],
            "",
            1,
            "none",
        ),
        ("nft", ["steps = 40", "steps = 40\nlayer_decay = 0.9"], "", 2, "layer_decay"),
    ] {
        let error = refused(method, change, more, code);
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!folder.path().join("small/metrics.jsonl").exists(), "{expected}");
    }
}

#[test]
fn pairs_with_one_side_missing_and_another_architecture_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "nft", "sd1", "");
    let text = std::fs::read_to_string(&config).unwrap();
    let pairs = folder.path().join("pairs.toml");
    let (start, end) = (text.find("[rl]").unwrap(), text.find("[[reward]]").unwrap());
    let dpo = [&text[..start], &text[end..]].concat().replace("task = \"rl\"", "task = \"dpo\"");
    std::fs::write(&pairs, dpo).unwrap();
    let error = failure(&["train", pairs.to_str().unwrap()], 1);
    assert!(error.contains("the sample has 1 images where two are expected"), "{error}");
    let error = failure(&["eval", config.to_str().unwrap(), "--model", &golden("sdxl")], 1);
    assert!(error.contains("model.from: ") && error.contains("of another architecture"), "{error}");
}

#[test]
fn rewards_that_are_all_equal_teach_nothing_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "nft", "sd1", "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("kind = \"brightness\"", "kind = \"brightness\"\nweight = 0.0"))
        .unwrap();
    let error = failure(&["train", config.to_str().unwrap()], 1);
    assert!(error.contains("nothing can be learned from it"), "{error}");
}
