//! A run that is killed, or stopped by Ctrl-C, goes on to the very numbers of the run that never was.

use crate::common::{command, model_weights, success, write_config, write_config_with};
use crate::ranks::send;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Waits until `done`, at most five minutes: a busy machine is slow.
fn wait_for(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(300), "no {what} in five minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The logged numbers but for the clock's.
fn numbers(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            for clock in ["seconds", "samples_per_second", "data_wait"] {
                record.as_object_mut().unwrap().remove(clock);
            }
            record.to_string()
        })
        .collect()
}

/// Trains 40 steps of `config`, whose runs are in `folder`, in one go and killed at step 20: both must end
/// alike.
pub fn assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder: &Path, config: &Path) {
    let config = config.to_str().unwrap();
    success(&["train", config, "--set", "run.name=straight"]);

    let mut killed =
        command(&["train", config, "--set", "run.name=killed"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("checkpoint of step 20", || folder.join("killed/checkpoints/step-20").exists());
    killed.kill().unwrap(); // SIGKILL
    killed.wait().unwrap();
    success(&["train", config, "--set", "run.name=killed", "--resume", "latest"]);

    assert_eq!(numbers(&folder.join("straight")), numbers(&folder.join("killed")));
    let model = model_weights(&folder.join("straight"));
    let model = model.strip_prefix(folder.join("straight")).unwrap();
    for file in ["checkpoints/step-40/optimizer.safetensors", "checkpoints/step-40/model.safetensors"]
        .map(Path::new)
        .into_iter()
        .chain([model])
    {
        let read = |run: &str| std::fs::read(folder.join(run).join(file)).unwrap();
        assert_eq!(read("straight"), read("killed"), "{}", file.display());
    }
}

#[test]
fn forty_steps_equal_twenty_a_kill_and_twenty_more_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &write_config(folder.path()));
}

#[test]
fn a_run_on_broken_shards_resumes_bit_for_bit_too_and_names_what_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let shards = folder.path().join("shards");
    let out = shards.to_str().unwrap();
    success(&["data", "shards", "--data", "kind = 'emoji'", "--out", out, "--samples-per-shard", "400"]);
    let spoil = |shard: &str, spoil: &dyn Fn(&mut Vec<u8>)| {
        let file = shards.join(shard);
        let mut bytes = std::fs::read(&file).unwrap();
        spoil(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
    };
    spoil("00001.tar", &|bytes| bytes.truncate(bytes.len() / 2));
    spoil("00003.tar", &|bytes| {
        let heads =
            bytes.windows(4).enumerate().filter(|(_, window)| *window == b"\x89PNG").map(|(at, _)| at);
        heads.take(40).collect::<Vec<_>>().into_iter().for_each(|at| bytes[at..at + 4].fill(0));
    });
    let config = write_config(folder.path());
    let webdataset =
        format!("train = {{ kind = 'webdataset', shards = '{out}/*.tar' }}\nmax_bad_samples = 50");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("train = { kind = \"emoji\", split = \"train\" }", &webdataset))
        .unwrap();
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(folder.path(), &config);
    let named = |run: &str| {
        let text = std::fs::read_to_string(folder.path().join(run).join("bad_samples.jsonl")).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(!named("straight").is_empty());
    assert_eq!(named("straight"), named("killed"));
}

#[test]
fn a_run_with_a_locked_text_tower_resumes_bit_for_bit_too() {
    let folder = tempfile::tempdir().unwrap();
    let bert = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/sentences/mean");
    let text = format!("text_from = {bert:?}\ntext_projection = false\nlock_text = {{}}");
    assert_forty_steps_equal_twenty_a_kill_and_twenty_more(
        folder.path(),
        &write_config_with(folder.path(), &text),
    );
}

#[test]
fn ctrl_c_finishes_the_step_leaves_a_checkpoint_and_exits_130() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let arguments = [
        "train",
        config.to_str().unwrap(),
        "--set",
        "train.steps=100000",
        "--set",
        "train.checkpoint_every=0",
    ];
    let mut child = command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = folder.path().join("small/metrics.jsonl");
    wait_for("first step", || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(folder.path().join("small/checkpoints/latest/state.json").is_file());
}

/// A full disk, where this process may mount one; else nothing is tested, and that is said.
#[test]
fn a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_whole() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // There is room for one checkpoint of the small model or two, not for three.
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(&disk)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a small disk is not allowed here");
        return;
    }
    let config = write_config(folder.path());
    let out = format!("run.out={}", disk.display());
    let output = crate::common::mm(&["train", config.to_str().unwrap(), "--set", &out]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let state = std::fs::read_to_string(disk.join("small/checkpoints/latest/state.json"));
    let names: Vec<_> = std::fs::read_dir(disk.join("small/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let unmounted = std::process::Command::new("umount").arg(&disk).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.lines().any(|line| line.starts_with("error: ") && line.contains("No space left")),
        "{stderr}"
    );
    let state: serde_json::Value = serde_json::from_str(&state.unwrap()).unwrap();
    assert!([10, 20].contains(&state["step"].as_u64().unwrap()), "{state}");
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("partial")), "{names:?}");
}
