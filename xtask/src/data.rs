//! `cargo xtask data`: puts embedded data sets into files, for other tools and for the eye.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

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
    let stats = mm_data::emoji::export(&out)?;
    println!(
        "{}: {} pairs to train on, {} held out, {:.1} MB of pictures",
        workspace.show(&out),
        stats.train,
        stats.held_out,
        stats.image_bytes as f64 / 1e6
    );
    Ok(())
}
