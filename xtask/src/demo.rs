//! `cargo xtask demo`: one `cargo xtask run` of the emoji configuration, with its own name and length.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::ranks;
use crate::run::execute;
use crate::workspace::Workspace;

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
    /// Another seed than the configuration's
    #[arg(long)]
    seed: Option<u64>,
    /// Remove an earlier demo and start again
    #[arg(long)]
    force: bool,
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let folder = workspace.path(RUN);
    if args.force && folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {RUN}"))?;
    }
    if folder.join("model").exists() && folder.join("report.html").exists() {
        bail!(
            "{RUN} holds a finished demo: look at {RUN}/report.html, \
             or start again with `cargo xtask demo --force`"
        );
    }
    let steps = if args.full { FULL_STEPS } else { STEPS };
    let mut overrides = vec!["run.name=demo".to_owned(), format!("train.steps={steps}")];
    overrides.extend(args.seed.map(|seed| format!("run.seed={seed}")));
    let root = workspace.path("");
    let finished = execute(workspace, &root, Path::new(CONFIG), &overrides, &ranks::Options::default())?;
    println!("\nLook at {RUN}/report.html: the loss, the best images of held-out texts, and heat maps.");
    println!("The trained model is {RUN}/model, in Hugging Face form. Try it:");
    let mm = workspace.show(&finished.mm);
    println!("  {mm} classify --model {RUN}/model --labels \"a cat,a dog\" IMAGE.png");
    Ok(())
}
