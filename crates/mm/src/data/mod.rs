//! `mm data`: pack, count, compare and look at data sets.

mod overlap;
mod set;
mod shards;
mod show;
mod stats;

use anyhow::Result;
pub use set::inline;

/// Pack a data set as shards, count what is in it, compare it with another, look at it.
#[derive(clap::Args)]
#[command(after_help = "Example: mm data stats --data emoji")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    // The model's arguments are for a filter that needs a model.
    #[command(mut_arg("model", |model| model.required(false)))]
    Shards(shards::Args),
    Stats(stats::Args),
    Show(show::Args),
    Overlap(overlap::Args),
}

/// Fails where not one of `tried` samples is good: a script would take exit code 0 for data.
fn ensure_some_good(good: usize, tried: usize) -> Result<()> {
    anyhow::ensure!(good > 0 || tried == 0, "not one of {tried} samples can be read: see the messages above");
    Ok(())
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Shards(args) => shards::run(args),
        Command::Stats(args) => stats::run(args),
        Command::Show(args) => show::run(args),
        Command::Overlap(args) => overlap::run(args),
    }
}
