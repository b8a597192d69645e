//! `cargo xtask demo`: a CLIP trained on emoji, evaluated, and shown.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::setup;
use crate::workspace::{Workspace, run as run_command};

/// Steps that give most of what the data has to give.
const STEPS: u32 = 1_800;
/// Steps of `--full`.
const FULL_STEPS: u32 = 4_300;
const CONFIG: &str = "configs/clip/emoji-vit-tiny.toml";
const RUN: &str = "runs/demo";

/// Options of `demo`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --full --seed 1 --force")]
pub struct Args {
    /// Train 4,300 steps instead of 1,800
    #[arg(long)]
    full: bool,
    /// Another seed than the config's
    #[arg(long)]
    seed: Option<u64>,
    /// Throw a former demo away and begin again
    #[arg(long)]
    force: bool,
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let folder = workspace.path(RUN);
    if args.force && folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {RUN}"))?;
    }
    let trained = folder.join("model").exists();
    if trained && folder.join("report.html").exists() {
        bail!(
            "{RUN} holds a finished demo: look at {RUN}/report.html, or begin again with `cargo xtask demo --force`"
        );
    }
    let libtorch = setup::ensure(workspace)?;
    let program = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    // Ctrl-C reaches mm too, which then writes a checkpoint: wait for it instead of ending before it.
    flag::register(SIGINT, Arc::default()).context("cannot listen for Ctrl-C")?;
    let mm = || {
        let mut command = workspace.program(&program, &libtorch);
        command.current_dir(workspace.path(""));
        command
    };
    if !trained {
        let steps = if args.full { FULL_STEPS } else { STEPS };
        let mut train = mm();
        train.args(["train", CONFIG, "--set", "run.name=demo", "--set", &format!("train.steps={steps}")]);
        if let Some(seed) = args.seed {
            train.args(["--set", &format!("run.seed={seed}")]);
        }
        // One that was stopped goes on from its last checkpoint.
        run_command(train.args(["--resume", "latest"]))?;
    }
    let report = format!("{RUN}/report.html");
    run_command(mm().args(["eval", RUN, "--report", &report]))?;
    println!("\nLook at {report}: the loss, the best images of held-out texts, and where the model looks.");
    println!("The trained model is {RUN}/model, in Hugging Face form. Try it:");
    let program = workspace.show(&program);
    println!("  {program} classify --model {RUN}/model --labels \"a cat,a dog\" IMAGE.png");
    Ok(())
}
