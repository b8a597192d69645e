//! One command starts a run and restarts it: after a kill, from a damaged checkpoint, and with closed output.

use crate::common::{command, failure, mm, success, write_config};
use crate::ranks::{LOST, error, outputs, send, start, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "no {what} in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn has_lines(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.len() > 0)
}

/// The small configuration with a small set to be evaluated on.
fn write_quick_config(folder: &Path) -> PathBuf {
    let config = write_config(folder);
    let text = std::fs::read_to_string(&config).unwrap();
    let few = r#"{ kind = "shapes", split = "held_out", samples = 12, size = 32 }"#;
    std::fs::write(&config, text.replace(r#"{ kind = "emoji", split = "held_out" }"#, few)).unwrap();
    config
}

fn model(folder: &Path, run: &str) -> Vec<u8> {
    std::fs::read(folder.join(run).join("model/model.safetensors")).unwrap()
}

#[test]
fn a_run_that_died_before_its_first_checkpoint_starts_again_by_the_same_command() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_quick_config(folder.path());
    let config = config.to_str().unwrap();
    let train = |run: &'static str| ["train", config, "--set", run, "--resume", "latest", "--json"];
    success(&train("run.name=straight"));
    let dead = train("run.name=dead");
    let mut child = command(&dead).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let run = folder.path().join("dead");
    wait_for("first step", || has_lines(&run.join("metrics.jsonl")));
    // It trains for a fraction of a second, and would end while another start is refused.
    send(&child, "STOP");
    let twice = failure(&dead, 1);
    assert!(twice.contains("another process trains in the run folder"), "{twice}");
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    // As where it was killed at once: its ten steps to the first checkpoint are a few milliseconds.
    for folder in ["checkpoints", "model"] {
        let removed = std::fs::remove_dir_all(run.join(folder));
        assert!(removed.is_ok() || !run.join(folder).exists(), "{removed:?}");
    }
    let advice = failure(&["train", config, "--set", "run.name=dead"], 1);
    assert!(advice.contains("exists: continue with --resume latest"), "{advice}");

    let again = mm(&dead);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(stderr(&again).contains("dead has no checkpoint yet: starting at step 0"), "{}", stderr(&again));
    assert_eq!(model(folder.path(), "straight"), model(folder.path(), "dead"));
    let steps = |run: &str| {
        std::fs::read_to_string(folder.path().join(run).join("metrics.jsonl")).unwrap().lines().count()
    };
    assert_eq!(steps("straight"), steps("dead"), "lines of the first attempt are dropped");
    let over = mm(&dead);
    assert!(
        over.status.success() && stderr(&over).contains("resuming from"),
        "a finished run only saves its model again"
    );
}

#[test]
fn processes_agree_on_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_quick_config(folder.path());
    let config = config.to_str().unwrap();
    let arguments = |resume: &'static str| ["train", config, "--set", "eval.every=0", "--resume", resume];
    for output in outputs(start(&arguments("latest"), 2), LIMIT) {
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let straight = model(folder.path(), "small");
    let run = folder.path().join("small");
    let latest = run.join("checkpoints/step-40/model.safetensors");
    let bytes = std::fs::read(&latest).unwrap();
    std::fs::write(&latest, &bytes[..bytes.len() / 2]).unwrap();

    let broken = outputs(start(&arguments("latest"), 2), LIMIT);
    assert_eq!(
        (broken[0].status.code(), broken[1].status.code()),
        (Some(1), Some(LOST)),
        "{}",
        stderr(&broken[0])
    );
    let message = error(&broken[0]);
    assert!(message.contains("checkpoints/step-40: model.safetensors has"), "{message}");
    assert!(
        message.contains("checkpoints/step-30 is complete: --resume last-good continues from it"),
        "{message}"
    );
    std::fs::remove_dir_all(run.join("model")).unwrap();
    let resumed = outputs(start(&arguments("last-good"), 2), LIMIT);
    assert!(resumed.iter().all(|output| output.status.success()), "{}", stderr(&resumed[0]));
    let said = stderr(&resumed[0]);
    assert!(said.contains("the run continues from") && said.contains("checkpoints/step-30"), "{said}");
    assert_eq!(model(folder.path(), "small"), straight);
}

#[test]
fn a_run_resumed_with_other_threads_or_vectors_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_quick_config(folder.path());
    let steps = |steps: &str| {
        let steps = format!("train.steps={steps}");
        command(&[
            "train",
            config.to_str().unwrap(),
            "--set",
            &steps,
            "--set",
            "eval.every=0",
            "--resume",
            "latest",
        ])
    };
    let message = |mut command: Command| {
        let output = command.env_remove("ATEN_CPU_CAPABILITY").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
            .lines()
            .filter(|line| line.contains("bit for bit"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let threads = |mut command: Command, threads: &str| {
        command.env("OMP_NUM_THREADS", threads);
        command
    };
    assert_eq!(message(threads(steps("10"), "1")), [""; 0]);
    assert_eq!(message(threads(steps("20"), "1")), [""; 0], "the same threads");
    let lines = message(threads(steps("30"), "2"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("1 process with 1 thread (") && lines[0].contains("1 process with 2 threads ("),
        "{lines:?}"
    );
    assert!(lines[0].contains("set OMP_NUM_THREADS=1"), "{lines:?}");

    // An older checkpoint does not say.
    let state = folder.path().join("small/checkpoints/step-30/state.json");
    let mut older: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&state).unwrap()).unwrap();
    older.as_object_mut().unwrap().remove("compute");
    older.as_object_mut().unwrap().remove("files");
    std::fs::write(&state, older.to_string()).unwrap();
    assert_eq!(message(threads(steps("40"), "1")), [""; 0]);
}

#[test]
fn training_goes_on_where_nobody_reads_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_quick_config(folder.path());
    let arguments = ["train", config.to_str().unwrap(), "--set", "eval.every=5", "--resume", "latest"];
    let mut child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.path().join("small/model/model.safetensors").is_file());
    // An error keeps its exit code when its output is closed.
    let mut child = command(&["train", "none.toml"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn a_rank_whose_launcher_is_killed_saves_a_checkpoint_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_quick_config(folder.path());
    let train = command(&[
        "train",
        config.to_str().unwrap(),
        "--set",
        "train.steps=1000000",
        "--set",
        "train.checkpoint_every=0",
    ]);
    let mut launcher = Command::new("sh");
    launcher
        .args(["-c", "MM_LAUNCHER=$$ \"$@\" & echo $! > \"$PID\"; wait", "sh"])
        .arg(train.get_program())
        .args(train.get_args());
    let pid = folder.path().join("pid");
    let mut launcher = launcher.env("PID", &pid).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("first step", || has_lines(&folder.path().join("small/metrics.jsonl")));
    launcher.kill().unwrap(); // SIGKILL: it can tell nobody
    launcher.wait().unwrap();
    let rank = std::fs::read_to_string(pid).unwrap();
    wait_for("checkpoint", || folder.path().join("small/checkpoints/latest/state.json").is_file());
    let process = Path::new("/proc").join(rank.trim());
    let runs = || std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
    wait_for("end of the rank", || !runs());
}
