//! `mm`: train, evaluate and use vision-language models. Each command parses its arguments, calls a crate and
//! prints.
#![deny(clippy::print_stdout, clippy::print_stderr)] // they panic where the reader has gone: `output` does not

mod attention;
mod classify;
mod convert;
mod data;
mod embed;
mod eval;
mod inspect;
mod labels;
mod model;
mod openmp;
mod out;
mod output;
mod probe;
mod progress;
mod ranks;
mod reading;
mod table;
mod train;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Train, evaluate and use vision-language models.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "warn,mm_clip=info,mm_train=info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(output::is_coloured())
        .log_internal_errors(false) // it would panic where standard error is closed
        .with_target(false)
        .without_time()
        .init();
    // Starting again takes a tenth of a second, which only long work wins back.
    if matches!(cli.command, Command::Train(_) | Command::Eval(_) | Command::Embed(_) | Command::Probe(_)) {
        openmp::shorten_spin();
    }
    let outcome = match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Classify(args) => classify::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Embed(args) => embed::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Attention(args) => attention::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Probe(args) => probe::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Data(args) => data::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Convert(args) => convert::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(&args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        output::note(format_args!("error: {}", one_line(&error)));
        ExitCode::from(match () {
            () if ranks::is_lost(&error) => ranks::LOST,
            () if is_usage(&error) => 2,
            () => 1,
        })
    })
}

/// Whether the user's arguments or configuration are at fault, rather than what they name.
fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<mm_core::config::ConfigError>())
}

/// The error and its causes on one line, each said once: many an error repeats its cause in its own message.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    {
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    line
}
