//! A task in a program of its own (`examples/classifier`), with everything that built-in tasks have.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example, which cargo builds beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples/classifier")
}

fn classifier(out: &Path, arguments: &[&str], ranks: usize) -> Vec<Output> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        let mut command = Command::new(program());
        command.args(arguments).arg("--set").arg(format!("run.out={}", out.display()));
        if ranks > 1 {
            let place =
                [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", ranks), ("MASTER_PORT", port.into())];
            command.env("MASTER_ADDR", "127.0.0.1");
            command.envs(place.map(|(name, value)| (name, value.to_string())));
        }
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..ranks).map(start).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// Runs the example, which must succeed, and gives what rank 0 printed.
fn success(out: &Path, arguments: &[&str], ranks: usize) -> String {
    let outputs = classifier(out, arguments, ranks);
    for output in &outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(outputs[0].stdout.clone()).unwrap()
}

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/classifier/emoji.toml");

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let steps = ["train", CONFIG, "--set", "train.steps=60", "--set", "train.checkpoint_every=20", "--json"];
    steps.into_iter().chain(more.iter().copied()).collect()
}

fn model(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("emoji-classifier/model/model.safetensors")).unwrap()
}

fn accuracy(json: &str) -> f64 {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["metrics"]["held_out/accuracy"].as_f64().unwrap()
}

#[test]
fn an_outside_task_is_trained_resumed_evaluated_and_run_on_two_ranks() {
    let (straight, resumed, ranks) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trained = success(straight.path(), &train(&[]), 1);
    assert!(accuracy(&trained) > 0.35, "{trained}"); // one in nine by chance

    // Stopped after 40 steps, the last of which a checkpoint holds; then on to 60.
    success(resumed.path(), &train(&[]), 1);
    let run = resumed.path().join("emoji-classifier");
    std::fs::remove_dir_all(run.join("model")).unwrap();
    std::fs::remove_dir_all(run.join("checkpoints/step-60")).unwrap();
    std::fs::remove_file(run.join("checkpoints/latest")).unwrap();
    success(resumed.path(), &train(&["--resume", "latest"]), 1);
    assert_eq!(model(straight.path()), model(resumed.path()), "resumed at step 40 and unbroken");

    let evaluated = success(straight.path(), &["eval", CONFIG, "--json"], 1);
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).unwrap();
    assert_eq!(evaluated[0]["metrics"]["accuracy"].as_f64(), Some(accuracy(&trained)));
    assert_eq!(evaluated[0]["samples"].as_u64(), Some(394));
    assert!(evaluated[0]["credit"].as_str().unwrap().contains("Twemoji"));

    let on_two = success(ranks.path(), &train(&[]), 2);
    assert!((accuracy(&on_two) - accuracy(&trained)).abs() < 0.06, "{on_two} and {trained}");
}

#[test]
fn an_outside_task_is_checked_and_listed_beside_the_built_in_ones() {
    let out = tempfile::tempdir().unwrap();
    let checked = success(out.path(), &["train", CONFIG, "--check", "--json"], 1);
    let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
    assert_eq!((checked["task"].as_str(), checked["steps"].as_u64()), (Some("classifier"), Some(300)));
    assert!(!out.path().join("emoji-classifier").exists(), "a check leaves no run");

    let mut refused = Command::new(program());
    let refused = refused.args(["train", CONFIG, "--set", "run.task=clasifier"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    let hint = "unknown task \"clasifier\"; did you mean \"classifier\"? ";
    let tasks = "clip, caption, vqa, diffusion, scene-reader, autoencoder, reward, rl, dpo, document, vlm, \
                 classifier";
    let expected = format!("{hint}tasks are {tasks}");
    assert!(stderr.contains(&expected), "{stderr}");
}
