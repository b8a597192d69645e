//! Automation for the workspace: `cargo xtask VERB`.
//!
//! It links no libtorch, so that it can install libtorch. One file per verb; a verb that needs libtorch
//! installs it first and then starts `mm`. To add a verb, write a file with an `Args` and a `run`, and add it
//! to [`Verb`].

mod atomic_dir;
mod bench;
mod ci;
mod coco_captions;
mod data;
mod demo;
mod easy_vqa;
mod goldens;
mod launch;
mod libtorch;
mod markdown;
mod minilm;
mod pip;
mod pipeline;
mod processor;
mod ranks;
mod run;
mod setup;
mod terminal;
mod tidy;
mod wheel;
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
    /// Install libtorch into .libtorch (every other verb does so where it is missing)
    Setup(setup::Args),
    /// Train a small CLIP on emoji, or another small model, and write a report
    Demo(demo::Args),
    /// Run a whole pipeline from one TOML: prepare, train, evaluate with a page
    Run(run::Args),
    /// Run every test of the workspace
    Test(ci::TestArgs),
    /// Check the rules of style that rustfmt and clippy do not hold
    Tidy(tidy::Args),
    /// Check format, style, lints and docs, then run every test
    #[command(after_help = "Example:\n  cargo xtask ci")]
    Ci,
    /// Train from a configuration: `mm train` with all its options, in one or several processes
    #[command(after_help = TRAIN_HELP)]
    Train(launch::GroupArgs),
    /// Evaluate a configuration or a run: `mm eval` with all its options, in one or several processes
    #[command(
        after_help = "Examples:\n  cargo xtask eval runs/demo\n  cargo xtask eval runs/demo --nproc 2\n  \
                      cargo xtask eval -- --help"
    )]
    Eval(launch::GroupArgs),
    /// Prepare, count and show data: embedded sets as files, pretrained models, shards
    Data(data::Args),
    /// Measure speed against the machine's limit and the Python peers
    Bench(bench::Args),
    /// Compute the tests' reference values again, in Python
    Goldens(goldens::Args),
}

fn main() -> ExitCode {
    let verb = Cli::parse_from(launch::group_options_first(env::args_os().collect())).verb;
    let workspace = Workspace::find();
    let done = match verb {
        Verb::Setup(args) => setup::run(&workspace, &args),
        Verb::Demo(args) => demo::run(&workspace, &args),
        Verb::Run(args) => run::run(&workspace, &args),
        Verb::Test(args) => ci::test(&workspace, &args),
        Verb::Tidy(args) => tidy::run(&workspace, &args),
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
