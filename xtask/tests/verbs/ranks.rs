//! `--nproc`: the environment of each rank, its output, failures, and Ctrl-C.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use crate::checkout::Checkout;

/// A checkout whose `mm` is a script.
fn with_mm(script: &str) -> Checkout {
    let checkout = Checkout::new();
    checkout.program("mm", script);
    checkout
}

/// Trains in several processes to the end.
fn train(script: &str, options: &[&str]) -> Output {
    with_mm(script)
        .command(&[&["train", "a.toml"], options].concat())
        .env_remove("OMP_NUM_THREADS")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The launcher's own lines.
fn closing(output: &Output) -> String {
    stderr(output).lines().filter(|line| !line.starts_with("[rank ")).collect::<Vec<_>>().join("\n")
}

/// Starts two ranks in the background and waits until both have written `ready.RANK`.
fn started(checkout: &Checkout) -> Child {
    let mut command = checkout.command(&["train", "a.toml", "--nproc", "2"]);
    let mut child = command.process_group(0).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&mut child, checkout, ["ready.0", "ready.1"]);
    child
}

fn wait_for(launcher: &mut Child, checkout: &Checkout, files: [&str; 2]) {
    while !files.iter().all(|file| checkout.path(file).exists()) {
        assert_eq!(launcher.try_wait().unwrap(), None, "the launcher ended too early");
        sleep(Duration::from_millis(10));
    }
}

/// Waits until the process whose id is in a file of the checkout has ended.
fn wait_for_end(checkout: &Checkout, file: &str) {
    let pid = fs::read_to_string(checkout.path(file)).unwrap();
    let mut checks = 0..1000;
    while runs(&pid) {
        assert!(checks.next().is_some(), "the process in {file} still runs");
        sleep(Duration::from_millis(20));
    }
}

/// True for a running process, false for a zombie.
fn runs(pid: &str) -> bool {
    let pid = pid.trim();
    let alive = test_kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap()).is_ok();
    alive && !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z ")
}

#[test]
fn each_rank_gets_its_environment_and_a_share_of_the_cores() {
    let script = r#"echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $OMP_NUM_THREADS $* >&2
[ $MASTER_PORT -gt 0 ] && [ -z "$TORCHELASTIC_USE_AGENT_STORE" ] && [ "$MM_LAUNCHER" = "$PPID" ]"#;
    let checkout = with_mm(script);
    let mut command = checkout.command(&["train", "a.toml", "--nproc=2", "--set", "a=b"]);
    command.env("TORCHELASTIC_USE_AGENT_STORE", "True").env_remove("OMP_NUM_THREADS");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let threads = (std::thread::available_parallelism().unwrap().get() / 2).max(1);
    for rank in 0..2 {
        let line = format!("[rank {rank}] {rank} {rank} 2 2 127.0.0.1 {threads} train a.toml --set a=b\n");
        assert!(stderr(&output).contains(&line), "{}", stderr(&output));
    }
    let output = command.env("OMP_NUM_THREADS", "7").output().unwrap();
    assert!(
        stderr(&output).contains(" 127.0.0.1 7 train"),
        "the user's OMP_NUM_THREADS is kept: {}",
        stderr(&output)
    );
}

#[test]
fn ranks_of_a_later_node_are_numbered_after_those_before_it() {
    let options = ["--nproc", "4", "--nnodes", "3", "--node-rank", "2", "--rdzv", "node1:29500"];
    let output =
        train("echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT", &options);
    assert!(output.status.success() && output.stdout.is_empty());
    for local in 0..4 {
        let rank = 8 + local;
        let line = format!("[rank {rank:>2}] {rank} {local} 12 4 node1 29500\n");
        assert!(stderr(&output).contains(&line), "{}", stderr(&output));
    }
}

#[test]
fn the_results_of_rank_0_are_unchanged_and_lines_are_not_mixed() {
    let script = r#"printf 'result %s\nno newline' $RANK
i=0; while [ $i -lt 300 ]; do printf 'half of %s, ' $RANK >&2; echo half of $RANK >&2; i=$((i+1)); done"#;
    let output = train(script, &["--nproc", "3"]);
    assert_eq!(output.stdout, b"result 0\nno newline");
    let text = stderr(&output);
    for rank in 0..3 {
        let line = format!("[rank {rank}] half of {rank}, half of {rank}");
        assert_eq!(text.lines().filter(|other| **other == line).count(), 300);
    }
    assert!(text.contains("[rank 2] no newline\n"));
    assert_eq!(text.lines().count(), 3 * 300 + 2 * 2);
}

/// Shell commands that wait until the launcher has reaped another rank, whose process id is in `pid.RANK`.
fn after(rank: u32) -> String {
    format!(
        "until [ -s pid.{rank} ]; do sleep 0.02; done; \
         while kill -0 $(cat pid.{rank}) 2>&-; do sleep 0.02; done"
    )
}

#[test]
fn the_first_rank_that_fails_for_its_own_reason_is_named() {
    let script = format!(
        "echo $$ > pid.$RANK\ncase $RANK in
        0) echo error: rank 1 went away >&2; exit 75;;
        1) {}; echo error: no such shard >&2; echo bye >&2; exit 3;;
        2) {}; echo error: too late >&2; exit 4;;\nesac",
        after(0),
        after(1)
    );
    let output = train(&script, &["--nproc", "3"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        closing(&output),
        "error: rank 1 failed (exit code 3): no such shard\n\
         the others: rank 0 exit code 75, rank 2 exit code 4"
    );
}

#[test]
fn ranks_that_fail_because_of_another_node_name_it() {
    let output = train("echo error: rank 5 of node2 went away >&2; exit 75", &["--nproc", "1"]);
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(closing(&output), "error: rank 0 failed (exit code 75): rank 5 of node2 went away");
}

#[test]
fn a_rank_that_does_not_end_is_terminated_and_then_killed_with_its_children() {
    let script = "case $RANK in
        0) until [ -e child ]; do sleep 0.02; done; sleep 0.1; echo out of room >&2; exit 9;;
        1) while :; do sleep 0.1; done;;
        2) trap '' TERM; sleep 1000 & echo $! > child; while :; do sleep 0.1; done;;\nesac";
    let checkout = with_mm(script);
    let output = checkout.xtask(&["eval", "runs/a", "--nproc", "3"]);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(
        closing(&output),
        "error: rank 0 failed (exit code 9): out of room\n\
         the others: rank 1 killed by signal 15, rank 2 killed by signal 9"
    );
    wait_for_end(&checkout, "child");
}

#[test]
fn a_killed_rank_gives_the_exit_code_of_its_signal() {
    let output = train("[ $RANK = 0 ] && exit 0; echo step 7 >&2; kill -SEGV $$", &["--nproc", "2"]);
    assert_eq!(output.status.code(), Some(139));
    assert!(
        closing(&output).starts_with("error: rank 1 failed (killed by signal 11): step 7\n"),
        "{}",
        stderr(&output)
    );
    let output = train("kill -KILL $$", &["--nproc", "1"]);
    assert_eq!(output.status.code(), Some(137));
    assert!(closing(&output).contains("memory"), "{}", stderr(&output));
}

#[test]
fn a_process_that_a_rank_left_running_does_not_delay_the_launcher() {
    let checkout = with_mm("sleep 1000 & echo $! > child");
    assert!(checkout.xtask(&["train", "a.toml", "--nproc", "1"]).status.success());
    wait_for_end(&checkout, "child");
}

#[test]
fn ctrl_c_reaches_each_rank_once_from_a_terminal_or_a_job_manager() {
    let script = "trap 'echo once >> interrupted.$RANK' INT; touch ready.$RANK
        until [ -e interrupted.$RANK ]; do sleep 0.05; done; sleep 0.3; exit 130";
    // A terminal signals every program in the foreground, a job manager the one that it started.
    type Sender = fn(Pid, Signal) -> rustix::io::Result<()>;
    for (send, signal) in [
        (kill_process_group as Sender, Signal::INT),
        (kill_process, Signal::INT),
        (kill_process, Signal::TERM),
    ] {
        let checkout = with_mm(script);
        let launcher = started(&checkout);
        send(Pid::from_child(&launcher), signal).unwrap();
        let output = launcher.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        assert_eq!(closing(&output), "");
        for rank in ["interrupted.0", "interrupted.1"] {
            assert_eq!(fs::read_to_string(checkout.path(rank)).unwrap(), "once\n");
        }
    }
}

#[test]
fn a_rank_that_cannot_save_after_ctrl_c_is_named() {
    let script = "trap '[ $RANK = 1 ] && exit 130; echo error: no room >&2; exit 1' INT; touch ready.$RANK
        while :; do sleep 0.05; done";
    let checkout = with_mm(script);
    let launcher = started(&checkout);
    kill_process(Pid::from_child(&launcher), Signal::INT).unwrap();
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        closing(&output).starts_with("error: rank 0 failed (exit code 1): no room\n"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_second_ctrl_c_ends_ranks_that_ignore_the_first() {
    let checkout =
        with_mm("trap 'touch heard.$RANK' INT; echo $$ > ready.$RANK; while :; do sleep 0.05; done");
    let mut launcher = started(&checkout);
    let pid = Pid::from_child(&launcher);
    kill_process(pid, Signal::INT).unwrap();
    wait_for(&mut launcher, &checkout, ["heard.0", "heard.1"]);
    kill_process(pid, Signal::INT).unwrap();
    let output = launcher.wait_with_output().unwrap();
    assert_eq!((output.status.code(), closing(&output)), (Some(130), String::new()));
    for rank in ["ready.0", "ready.1"] {
        wait_for_end(&checkout, rank);
    }
}

#[test]
fn contradictory_options_are_refused_with_one_clear_line() {
    let cases: [(&[&str], &str); 9] = [
        (&["--nproc", "0"], "invalid value '0' for '--nproc <N>'"),
        (&["--nproc=x"], "invalid value 'x' for '--nproc <N>'"),
        (&["--nproc"], "invalid value '' for '--nproc <N>'"),
        (&["--nproc", "2", "--nproc", "3"], "cannot be used multiple times"),
        (&["--nproc", "2", "--nnodes", "2"], "needs --nnodes M, --node-rank R and --rdzv HOST:PORT"),
        (&["--nproc", "2", "--nnodes", "2", "--node-rank", "0"], "needs --nnodes M"),
        (
            &["--nproc", "2", "--nnodes", "2", "--node-rank", "2", "--rdzv", "a:1"],
            "--node-rank 2 is out of range: 2 nodes",
        ),
        (&["--nproc", "2", "--rdzv", "node1"], "expected HOST:PORT"),
        (&["--nnodes", "2"], "need --nproc N"),
    ];
    for (options, expected) in cases {
        let output = train("echo started", options);
        let text = stderr(&output);
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{options:?}: {text}");
        assert!(!output.status.success() && output.stdout.is_empty(), "{options:?}");
    }
}
