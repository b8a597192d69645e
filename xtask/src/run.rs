//! `cargo xtask run`: a whole pipeline from one TOML. Prepares data and models, trains, and evaluates with a
//! page.
//!
//! The same command continues a run that was interrupted: prepared data is kept, training resumes from the
//! latest checkpoint.

use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;

use anyhow::{Context, Result};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::libtorch::Libtorch;
use crate::pipeline::Pipeline;
use crate::ranks;
use crate::setup;
use crate::terminal::note;
use crate::workspace::{Workspace, run as run_command};

const HELP: &str = "Examples:
  cargo xtask run configs/clip/emoji-vit-tiny.toml
  cargo xtask run configs/clip/emoji-lit-minilm.toml --set train.steps=300 --set run.name=short

In the TOML, `prepare = [\"minilm\"]` lists steps of `cargo xtask data`, and `nproc = 8` in `[launch]` is the
number of processes. The same command continues an interrupted run.";

/// Options of `run`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The configuration
    config: PathBuf,
    /// Override a value of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    group: ranks::Options,
}

/// A pipeline that has ended well.
pub struct Finished {
    /// The run's folder.
    pub run: PathBuf,
    /// Its HTML page; `None` without evaluation sets.
    pub report: Option<PathBuf>,
    /// The program that trained it.
    pub mm: PathBuf,
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let finished = execute(workspace, Path::new(""), &args.config, &args.overrides, &args.group)?;
    let run = finished.run.display();
    println!("\nThe trained model is in {run}/model");
    if let Some(report) = finished.report {
        println!("The report is {}", report.display());
    }
    Ok(())
}

/// Runs the pipeline of `config` from its first unfinished step. Relative paths are seen from `folder`; an
/// empty one is the user's own.
///
/// # Errors
/// The configuration is refused, or a step fails; an interrupted training is an
/// [`Ended`](crate::workspace::Ended) with exit code 130.
pub fn execute(
    workspace: &Workspace,
    folder: &Path,
    config: &Path,
    overrides: &[String],
    options: &ranks::Options,
) -> Result<Finished> {
    let pipeline = Pipeline::read(folder, config, overrides)?;
    let run = pipeline.run.with_context(|| format!("{}: `run.name` is missing", config.display()))?;
    options.group(pipeline.nproc)?; // refuses bad options before anything is built
    for step in &pipeline.prepare {
        step.prepare(workspace)?;
    }
    let libtorch = setup::ensure(workspace)?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let mm = Mm { workspace, libtorch: &libtorch, executable: mm, folder, options, nproc: pipeline.nproc };
    // Ctrl-C also reaches mm, which then writes a checkpoint: wait for it instead of ending first.
    flag::register(SIGINT, Arc::default()).context("cannot listen for Ctrl-C")?;

    mm.run(|train| {
        train.arg("train").arg(config);
        for argument in overrides {
            train.args(["--set", argument]);
        }
        train.args(["--resume", "latest"]);
    })?;
    let report = pipeline.has_eval_sets.then(|| run.join("report.html"));
    match &report {
        Some(report) => mm.run(|eval| {
            eval.arg("eval").arg(&run).arg("--report").arg(report);
        })?,
        None => note("not evaluated: the configuration has no [data.eval.NAME]"),
    }
    Ok(Finished { run, report, mm: mm.executable })
}

/// The built `mm`, and how it is started.
struct Mm<'a> {
    workspace: &'a Workspace,
    libtorch: &'a Libtorch,
    executable: PathBuf,
    folder: &'a Path,
    options: &'a ranks::Options,
    nproc: u32,
}

impl Mm<'_> {
    /// Runs `mm` to its end in as many processes as the options or the configuration say.
    fn run(&self, arguments: impl Fn(&mut Command)) -> Result<()> {
        let command = || {
            let mut command = self.workspace.program(&self.executable, self.libtorch);
            command.env("MM_LAUNCHER", process::id().to_string()); // mm saves and ends if xtask is killed
            if !self.folder.as_os_str().is_empty() {
                command.current_dir(self.folder);
            }
            arguments(&mut command);
            command
        };
        match self.options.group(self.nproc)? {
            Some(group) => ranks::run(&group, &command),
            None => run_command(&mut command()),
        }
    }
}
