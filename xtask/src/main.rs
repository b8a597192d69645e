//! Automation for the workspace: `cargo xtask VERB`.
//!
//! It links no libtorch, so that it can bring libtorch. One file a verb; what needs libtorch prepares it and
//! then starts `mm`. To add a verb, write its file with an `Args` and a `run`, and name it in [`Verb`].

mod bench;
mod ci;
mod data;
mod demo;
mod goldens;
mod launch;
mod libtorch;
mod minilm;
mod page;
mod pip;
mod processor;
mod ranks;
mod setup;
mod terminal;
mod whole;
mod workspace;

use std::env;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::{Ended, Workspace};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Set up, test, train and measure the workspace", version)]
#[command(after_help = "Example:\n  cargo xtask demo")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const TRAIN_HELP: &str = "Examples:
  cargo xtask train configs/clip/emoji-vit-tiny.toml --set train.lr=1e-4
  cargo xtask train configs/clip/emoji-vit-tiny.toml --nproc 2
  cargo xtask train configs/clip/vit-b-32.toml --nproc 8 --nnodes 2 --node-rank 0 --rdzv node1:29500
  cargo xtask train -- --help";

#[derive(Subcommand)]
enum Verb {
    /// Bring libtorch into .libtorch (every other verb does it when it is missing)
    Setup(setup::Args),
    /// Train a small CLIP on emoji and show what it learnt
    Demo(demo::Args),
    /// Run every test of the workspace
    Test(ci::TestArgs),
    /// Check format, lints and docs, then run every test
    #[command(after_help = "Example:\n  cargo xtask ci")]
    Ci,
    /// Train from a config: `mm train` with all its options, in one process or several
    #[command(after_help = TRAIN_HELP)]
    Train(launch::GroupArgs),
    /// Evaluate a config or run: `mm eval` with all its options, in one process or several
    #[command(
        after_help = "Examples:\n  cargo xtask eval runs/demo\n  cargo xtask eval runs/demo --nproc 2\n  cargo xtask eval -- --help"
    )]
    Eval(launch::GroupArgs),
    /// Prepare data: embedded sets as files, pretrained models, shards; count it, look at it
    Data(data::Args),
    /// Measure against the machine's limit and the Python peers
    Bench(bench::Args),
    /// Make the reference values of the tests again, in Python
    Goldens(goldens::Args),
}

fn main() -> ExitCode {
    let verb = Cli::parse_from(launch::group_options_first(env::args_os().collect())).verb;
    let workspace = Workspace::find();
    let done = match verb {
        Verb::Setup(args) => setup::run(&workspace, &args),
        Verb::Demo(args) => demo::run(&workspace, &args),
        Verb::Test(args) => ci::test(&workspace, &args),
        Verb::Ci => ci::run(&workspace),
        Verb::Train(args) => launch::run_group(&workspace, "train", &args),
        Verb::Eval(args) => launch::run_group(&workspace, "eval", &args),
        Verb::Data(args) => data::run(&workspace, &args),
        Verb::Bench(args) => bench::run(&workspace, &args),
        Verb::Goldens(args) => goldens::run(&workspace, &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Ended>() {
            Some(ended) => ExitCode::from(ended.0),
            None => {
                terminal::note(format_args!("error: {error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}
