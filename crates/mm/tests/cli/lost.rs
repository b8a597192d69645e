//! What becomes of a run of several processes when one of them fails, is killed, or never comes.

use crate::common::write_config;
use crate::ranks::{
    LIMIT, LOST, error, free_port, losses, outputs, rank_command, send, start, stderr, success,
    wait_for_first_step,
};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Output};
use std::time::Duration;

fn train<'a>(config: &'a Path, sets: &[&'a str]) -> Vec<&'a str> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    ["train", config.to_str().unwrap()].into_iter().chain(sets).collect()
}

/// A number below `below` that depends on `seed` alone.
fn draw(seed: u64, below: u64) -> u64 {
    mm_core::seed::derive(seed, "test", 0) % below
}

fn inode(file: &Path) -> Option<u64> {
    std::fs::metadata(file).ok().map(|file| file.ino())
}

#[test]
fn a_run_whose_processes_are_killed_twenty_times_ends_as_the_one_that_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let options = ["train.steps=300", "train.checkpoint_every=10", "eval.every=0"];
    let straight = [&options[..], &["run.name=straight"]].concat();
    success(&train(&config, &straight), 2);
    let killed = folder.path().join("small");
    let latest = killed.join("checkpoints/latest/state.json");
    let saved = || -> usize {
        let state =
            std::fs::read_to_string(&latest).map_or(serde_json::json!({}), |text| text.parse().unwrap());
        state["step"].as_u64().unwrap_or(0) as usize
    };
    let mut kills = 0;
    for time in 0..20 {
        let mut arguments = train(&config, &options);
        if latest.exists() {
            arguments.extend(["--resume", "latest"]);
        } else if killed.exists() {
            std::fs::remove_dir_all(&killed).unwrap();
        }
        let mut children = start(&arguments, 2);
        // The log has a line a step; what is resumed writes it anew up to the checkpoint.
        let (log, before) = (killed.join("metrics.jsonl"), inode(&killed.join("metrics.jsonl")));
        let count = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        let lines = || if inode(&log) == before { 0 } else { count() };
        let last = saved() + 1 + draw(time, 25) as usize;
        while lines() < last && children.iter_mut().all(|child| child.try_wait().unwrap().is_none()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let victim = draw(time + 100, 2) as usize;
        children[victim].kill().unwrap(); // SIGKILL
        let survivor = outputs(children, LIMIT).swap_remove(1 - victim);
        if survivor.status.success() {
            break; // on a busy machine the run may come to its end before its last kills
        }
        assert_eq!(survivor.status.code(), Some(LOST), "killed rank {victim}: {}", stderr(&survivor));
        let message = error(&survivor);
        assert!(message.contains("another process of the run exited or does not respond"), "{message}");
        kills += 1;
    }
    assert!(kills >= 5, "{kills} kills");
    let mut arguments = train(&config, &options);
    arguments.extend(["--resume", "latest"]);
    success(&arguments, 2);
    assert_eq!(losses(&folder.path().join("straight")), losses(&killed));
    let read = |run: &Path| std::fs::read(run.join("checkpoints/latest/optimizer.safetensors")).unwrap();
    assert_eq!(read(&folder.path().join("straight")), read(&killed));
}

#[test]
fn a_process_that_hangs_is_given_up_after_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let mut children = start(&train(&config, &["train.steps=100000", "run.timeout_seconds=20"]), 2);
    wait_for_first_step(&mut children, &folder.path().join("small"));
    let mut hung = children.remove(1);
    send(&hung, "STOP");
    let outputs = outputs(children, LIMIT);
    hung.kill().unwrap();
    hung.wait().unwrap();
    assert_eq!(outputs[0].status.code(), Some(LOST), "{}", stderr(&outputs[0]));
    assert!(error(&outputs[0]).contains("imed out"), "{}", error(&outputs[0]));
}

/// Starts two processes, the second with other arguments or another meeting place, and gives how both ended.
fn unequal(first: &[&str], second: &[&str], change: impl Fn(&mut std::process::Command)) -> Vec<Output> {
    let port = free_port();
    let mut other = rank_command(second, 1, 2, port);
    change(&mut other);
    let children: Vec<Child> = vec![rank_command(first, 0, 2, port).spawn().unwrap(), other.spawn().unwrap()];
    outputs(children, LIMIT)
}

#[test]
fn configurations_that_differ_are_named_with_rank_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let ended = unequal(&train(&config, &[]), &train(&config, &["train.lr=1e-2", "run.seed=8"]), |_| {});
    for output in &ended {
        assert_eq!(output.status.code(), Some(1));
        assert!(
            error(output).contains("differ in their configuration: rank 1 in run.seed and train.lr;"),
            "{}",
            error(output)
        );
    }
    assert!(!folder.path().join("small").exists());
}

#[test]
fn a_wrong_address_and_a_missing_process_are_reported_within_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let arguments = train(&config, &["run.timeout_seconds=2"]);
    let ended = unequal(&arguments, &arguments, |other| {
        other.env("MASTER_ADDR", "nowhere.invalid");
    });
    assert!(error(&ended[0]).contains("rank 1 missing (1 of 2 joined)"), "{}", error(&ended[0]));
    assert!(
        error(&ended[1]).contains("rank 1 cannot reach rank 0 at nowhere.invalid:"),
        "{}",
        error(&ended[1])
    );
    assert!(ended.iter().all(|output| output.status.code() == Some(1)));
}

#[test]
fn a_process_that_has_no_data_says_so_and_the_others_leave_it_the_word() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    std::fs::create_dir(folder.path().join("here")).unwrap();
    std::fs::create_dir(folder.path().join("there")).unwrap();
    let rows: String = (0..40).map(|row| format!("{row}.png,picture {row}\n")).collect();
    std::fs::write(folder.path().join("here/pairs.csv"), format!("image,caption\n{rows}")).unwrap();
    for row in 0..40 {
        crate::common::write_png(&folder.path().join(format!("here/{row}.png")), row as u8);
    }
    let csv = "data.train={kind='csv', path='pairs.csv'}";
    let arguments = train(&config, &[csv, "train.steps=6"]);
    let port = free_port();
    let run = |rank: usize, place: &str| {
        rank_command(&arguments, rank, 2, port).current_dir(folder.path().join(place)).spawn().unwrap()
    };
    let ended = outputs(vec![run(0, "here"), run(1, "there")], LIMIT);
    assert_eq!(
        (ended[0].status.code(), ended[1].status.code()),
        (Some(LOST), Some(1)),
        "{}",
        stderr(&ended[0])
    );
    assert!(error(&ended[1]).contains("pairs.csv"), "{}", error(&ended[1]));
}

#[test]
fn data_that_fails_in_one_process_stops_all_and_keeps_every_finished_step() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let pairs = folder.path().join("pairs");
    std::fs::create_dir(&pairs).unwrap();
    let rows: String = (0..64).map(|row| format!("{row}.png,picture {row}\n")).collect();
    std::fs::write(pairs.join("pairs.csv"), format!("image,caption\n{rows}")).unwrap();
    for row in 0..64 {
        crate::common::write_png(&pairs.join(format!("{row}.png")), row as u8);
    }
    std::fs::write(pairs.join("40.png"), b"no picture").unwrap();
    let csv = format!("data.train={{kind='csv', path='{}'}}", pairs.join("pairs.csv").display());
    let arguments = train(&config, &[&csv, "train.checkpoint_every=0", "data.prefetch=1"]);
    let ended = outputs(start(&arguments, 2), LIMIT);
    let codes: Vec<i32> = ended.iter().map(|output| output.status.code().unwrap()).collect();
    assert!(codes == [1, LOST] || codes == [LOST, 1], "{codes:?} {}", stderr(&ended[0]));
    let failed = &ended[codes.iter().position(|code| *code == 1).unwrap()];
    assert!(error(failed).contains("40.png"), "{}", error(failed));
    let done = losses(&folder.path().join("small")).len();
    assert!(folder.path().join(format!("small/checkpoints/step-{done}/state.json")).is_file() || done == 0);
}

#[test]
fn a_batch_that_processes_cannot_share_is_a_mistake_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    for output in outputs(start(&train(&config, &["train.accumulate=2"]), 3), LIMIT) {
        assert_eq!(output.status.code(), Some(2));
        let message = error(&output);
        assert!(
            message.contains("small.toml:")
                && message.contains("3 processes cannot share batches of 8 samples"),
            "{message}"
        );
    }
}

#[test]
fn a_timeout_that_no_clock_can_hold_is_a_mistake_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    for timeout in ["run.timeout_seconds=1e18", "run.timeout_seconds=inf", "run.timeout_seconds=0.0"] {
        let message = crate::common::failure(&train(&config, &[timeout]), 2);
        assert!(message.contains("`run.timeout_seconds`: must be above 0 and at most 31536000"), "{message}");
    }
}

#[test]
fn a_gpu_that_is_not_here_is_reported_before_anybody_waits() {
    if tch::Cuda::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    for output in outputs(start(&train(&config, &["run.device=cuda:0"]), 2), LIMIT) {
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains("device \"cuda:0\""), "{}", error(&output));
    }
}

#[test]
fn an_environment_that_contradicts_itself_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let mut command = crate::common::command(&train(&config, &[]));
    let output = command.env("RANK", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("WORLD_SIZE is not set"), "{}", error(&output));
    success(&train(&config, &["train.steps=6"]), 1); // what belongs together is one process
}
