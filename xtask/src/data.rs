//! `cargo xtask data`: puts embedded data sets into files, for other tools and for the eye.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::workspace::{Workspace, run as run_command};

/// Options of `data`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask data emoji")]
pub struct Args {
    #[command(subcommand)]
    set: Set,
}

#[derive(clap::Subcommand)]
enum Set {
    /// The emoji pictures as PNG files with their captions, split as the demo splits them
    #[command(after_help = "Example:\n  cargo xtask data emoji --out data/emoji")]
    Emoji {
        /// The folder to write into [default: data/emoji]
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let Set::Emoji { out } = &args.set;
    let out = out.clone().unwrap_or_else(|| workspace.path("data/emoji"));
    run_command(&mut emoji(workspace, &std::path::absolute(out)?))
}

/// The program that writes the emoji set: `images/*.png`, `train.tsv`, `held_out.tsv`. It links no libtorch.
pub fn emoji(workspace: &Workspace, out: &Path) -> Command {
    let mut cargo = workspace.cargo(None);
    cargo.args(["run", "--quiet", "--release", "--package", "xtask", "--example", "emoji", "--"]).arg(out);
    cargo
}
