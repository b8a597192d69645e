//! `mm` as several processes, started as torchrun starts them.

use crate::common::command;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The exit code of a process that ended only because another one did.
pub const LOST: i32 = 75;

/// Within this time all processes end, unless one hangs: much more than they need on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A port without a listener.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `mm` as process `rank` of `world`, which meet on `port` of this machine; not yet started.
pub fn rank_command(arguments: &[&str], rank: usize, world: usize, port: u16) -> Command {
    let mut command = command(arguments);
    let numbers = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", world), ("MASTER_PORT", port.into())];
    command.envs(numbers.map(|(name, number)| (name, number.to_string())));
    command.env("MASTER_ADDR", "127.0.0.1").env("OMP_NUM_THREADS", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts `mm` as `world` processes.
pub fn start(arguments: &[&str], world: usize) -> Vec<Child> {
    let port = free_port();
    (0..world).map(|rank| rank_command(arguments, rank, world, port).spawn().unwrap()).collect()
}

/// Waits until a run that was just started has done its first step, which it logs in `run`.
pub fn wait_for_first_step(children: &mut [Child], run: &Path) {
    while !std::fs::metadata(run.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0) {
        assert!(
            children.iter_mut().all(|child| child.try_wait().unwrap().is_none()),
            "a process ended before a step"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal, such as `INT`, to a process.
pub fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "{signal}");
}

/// Waits for all processes, which must end within `limit`.
pub fn outputs(children: Vec<Child>, limit: Duration) -> Vec<Output> {
    let begun = Instant::now();
    let mut children = children;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        if begun.elapsed() > limit {
            children.iter_mut().for_each(|child| child.kill().unwrap());
            let message = children.into_iter().map(|child| stderr(&child.wait_with_output().unwrap()));
            panic!("not all processes ended within {limit:?}: {:?}", message.collect::<Vec<_>>());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// Runs `mm` as `world` processes, which must all succeed, and gives what rank 0 printed; the others print
/// nothing.
pub fn success(arguments: &[&str], world: usize) -> String {
    let outputs = outputs(start(arguments, world), LIMIT);
    for (rank, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "rank {rank} of {world}, {arguments:?}: {}", stderr(output));
        assert!(rank == 0 || output.stdout.is_empty());
    }
    String::from_utf8(outputs[0].stdout.clone()).unwrap()
}

/// What a process wrote to its standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process's only `error:` line.
pub fn error(output: &Output) -> String {
    let stderr = stderr(output);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    lines[0].to_owned()
}

/// The training losses of the run in `run`, step by step.
pub fn losses(run: &Path) -> Vec<f64> {
    metrics(run, "loss")
}

/// The training metric `name` of the run in `run`, step by step.
pub fn metrics(run: &Path, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.filter(|record| record["kind"] == "train").map(|record| record[name].as_f64().unwrap()).collect()
}
