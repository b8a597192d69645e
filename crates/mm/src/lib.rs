//! The command line `mm`: train, evaluate and use vision-language models. Each command parses its arguments,
//! calls a crate and prints.
//!
//! # A task of your own
//! A crate that implements [`mm_train::Task`] gets `mm train` and `mm eval` for it, with everything around
//! them, from a program of one line:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     mm::main_with::<MyTask>()
//! }
//! ```
//!
//! `examples/classifier` is such a program; `docs/extending.md` walks through it.
#![deny(clippy::print_stdout, clippy::print_stderr)] // they panic when the reader has gone: `output` does not

mod attention;
mod caption;
mod caption_metrics;
mod chat;
mod classify;
mod convert;
mod data;
mod display;
mod edit;
mod embed;
mod eval;
mod generate;
mod generation;
mod image_metrics;
mod images;
mod inspect;
mod inspect_diffusion;
mod inspect_image;
mod labels;
mod model;
mod openmp;
mod out;
mod output;
mod probe;
mod progress;
mod ranks;
mod read;
mod reading;
mod reward;
mod search;
mod serve;
mod table;
mod tasks;
mod train;
mod vqa;
mod vqa_metrics;

use clap::{Parser, Subcommand};
use mm_train::Task;
use std::process::ExitCode;
use tasks::TaskEntry;
use tracing_subscriber::EnvFilter;

/// Train, evaluate and use vision-language models.
#[derive(Parser)]
#[command(name = "mm", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Caption(caption::Args),
    Vqa(vqa::Args),
    Chat(chat::Args),
    Read(read::Args),
    Generate(generate::Args),
    Edit(edit::Args),
    Reward(reward::Args),
    Search(search::Args),
    Serve(serve::Args),
    Classify(classify::Args),
    Embed(embed::Args),
    Attention(attention::Args),
    Probe(probe::Args),
    Data(data::Args),
    Convert(convert::Args),
    Inspect(inspect::Args),
}

/// The exit code of a run that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs the command line with the tasks of this workspace.
pub fn main() -> ExitCode {
    run(&[], "warn,mm=info")
}

/// Runs the command line with the task `T` beside those of this workspace.
pub fn main_with<T: Task>() -> ExitCode {
    let own_crate = std::any::type_name::<T>().split("::").next().unwrap_or_default();
    run(&[TaskEntry::of::<T>()], &format!("warn,mm=info,{own_crate}=info"))
}

/// `log_levels` holds without `RUST_LOG`; a target covers all crates whose names begin with it.
fn run(outside: &[TaskEntry], log_levels: &str) -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| log_levels.into()))
        .with_writer(std::io::stderr)
        .with_ansi(output::is_colored())
        .log_internal_errors(false) // it panics when standard error is closed
        .with_target(false)
        .without_time()
        .init();
    // Restarting takes a tenth of a second, which only long work wins back.
    if matches!(
        cli.command,
        Command::Train(_)
            | Command::Eval(_)
            | Command::Caption(_)
            | Command::Vqa(_)
            | Command::Chat(_)
            | Command::Read(_)
            | Command::Generate(_)
            | Command::Edit(_)
            | Command::Embed(_)
            | Command::Search(_)
            | Command::Probe(_)
            | Command::Serve(_)
    ) {
        openmp::shorten_spin();
    }
    let done = |()| ExitCode::SUCCESS;
    let outcome = match cli.command {
        Command::Train(args) => train::dispatch(&args, outside),
        Command::Eval(args) => eval::dispatch(&args, outside).map(done),
        Command::Caption(args) => caption::run(&args).map(done),
        Command::Vqa(args) => vqa::run(&args).map(done),
        Command::Chat(args) => chat::run(&args).map(done),
        Command::Read(args) => read::run(&args).map(done),
        Command::Generate(args) => generate::run(&args).map(done),
        Command::Edit(args) => edit::run(&args).map(done),
        Command::Reward(args) => reward::run(&args).map(done),
        Command::Search(args) => search::run(&args).map(done),
        Command::Serve(args) => serve::run(&args).map(done),
        Command::Classify(args) => classify::run(&args).map(done),
        Command::Embed(args) => embed::run(&args).map(done),
        Command::Attention(args) => attention::run(&args).map(done),
        Command::Probe(args) => probe::run(&args).map(done),
        Command::Data(args) => data::run(&args).map(done),
        Command::Convert(args) => convert::run(&args).map(done),
        Command::Inspect(args) => inspect::run(&args).map(done),
    };
    outcome.unwrap_or_else(|error| {
        output::note(format_args!("error: {}", one_line(&error)));
        let code = if ranks::is_lost(&error) {
            ranks::LOST
        } else if is_usage(&error) {
            2
        } else {
            1
        };
        ExitCode::from(code)
    })
}

/// Whether the user's arguments or configuration are at fault, rather than the files they name.
fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<mm_core::config::ConfigError>())
}

/// The error and its causes on one line, each once: many errors repeat their cause in their own message.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    line
}
