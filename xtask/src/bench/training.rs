//! Runs of `mm train` that are timed, and programs in several processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::program::median;
use crate::libtorch::Libtorch;
use crate::ranks::Group;
use crate::workspace::{Workspace, last_line};

/// A line of `metrics.jsonl`.
#[derive(Deserialize)]
struct Step {
    kind: String,
    #[serde(default)]
    step: u64,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    overlap: f64,
}

/// The `mm` that trains, and the folder for its runs.
pub struct Training<'a> {
    pub workspace: &'a Workspace,
    pub libtorch: &'a Libtorch,
    pub mm: &'a Path,
    pub folder: PathBuf,
}

/// What a run showed.
pub struct Trained {
    /// Median seconds of a step.
    pub seconds: f64,
    /// The share of the gradient exchange that overlaps with the backward pass.
    pub overlap: f64,
}

impl Training<'_> {
    /// Trains `config`, whose run is `name`, with `--set` of each of `sets`, in `world` processes on two
    /// cores. The first `warmup` lines of its metrics are not timed.
    pub fn run(
        &self,
        world: u32,
        config: &Path,
        name: &str,
        sets: &[&str],
        warmup: usize,
    ) -> Result<Trained> {
        let run = self.folder.join(name);
        let _ = fs::remove_dir_all(&run);
        let out = format!("run.out={}", self.folder.display());
        let sets: Vec<&str> =
            [out.as_str()].into_iter().chain(sets.iter().copied()).flat_map(|set| ["--set", set]).collect();
        as_processes(world, &|| {
            let mut mm = self.workspace.program(self.mm, self.libtorch);
            mm.current_dir(self.workspace.path("")).arg("train").arg(config).args(&sets);
            mm
        })?;
        let metrics =
            fs::read_to_string(run.join("metrics.jsonl")).context("the run left no metrics.jsonl")?;
        let steps: Vec<Step> = metrics.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let steps: Vec<Step> = steps.into_iter().filter(|step| step.kind == "train").collect();
        if steps.len() <= warmup {
            bail!("the run has {} lines of metrics: at least {} are needed", steps.len(), warmup + 1);
        }
        let step_seconds =
            |pair: &[Step]| (pair[1].seconds - pair[0].seconds) / (pair[1].step - pair[0].step).max(1) as f64;
        let seconds: Vec<f64> = steps[warmup - 1..].windows(2).map(step_seconds).collect();
        let overlap = steps.last().map_or(0.0, |step| step.overlap);
        Ok(Trained { seconds: median(&seconds), overlap })
    }
}

/// Runs a program in `world` processes that share the two cores, and returns the output of rank 0.
pub fn as_processes(world: u32, program: &dyn Fn() -> Command) -> Result<String> {
    let group = Group::on_this_node(world)?;
    let children = (0..world).map(|rank| {
        let mut command = program();
        group.set_env(rank, &mut command);
        command.env("OMP_NUM_THREADS", (2 / world).to_string());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        child.with_context(|| format!("cannot start {}", command.get_program().display()))
    });
    let outputs = children.collect::<Result<Vec<_>>>()?.into_iter().map(|child| child.wait_with_output());
    let outputs = outputs.collect::<Result<Vec<_>, _>>().context("cannot wait for a process")?;
    match outputs.iter().find(|output| !output.status.success()) {
        Some(failed) => bail!("a process failed: {}", last_line(&failed.stderr)),
        None => Ok(String::from_utf8_lossy(&outputs[0].stdout).into_owned()),
    }
}
