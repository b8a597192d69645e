//! `mm search duplicates`.

use super::{CandidateArgs, IndexArgs};
use crate::output;
use crate::progress::Bars;
use anyhow::Result;
use mm_train::Progress;

/// Find groups of near duplicates in an index.
#[derive(clap::Args)]
#[command(after_help = "Example: mm search duplicates --index photos.index --threshold 0.97")]
pub struct Args {
    #[command(flatten)]
    index: IndexArgs,
    /// The least similarity of an image to another one of its group.
    #[arg(long, value_name = "COSINE", default_value_t = 0.95)]
    threshold: f32,
    #[command(flatten)]
    candidates: CandidateArgs,
    /// Print one JSON list of keys a group instead of lines.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let index = args.index.open()?;
    let bars = Bars::default();
    let progress = |done: usize, total: usize| bars.report("items", done as u64, total as u64);
    let groups = index.near_duplicates(args.threshold, args.candidates.candidates(), &progress)?;
    for group in &groups {
        let keys = group.iter().map(|&id| Ok(index.item(id)?.key)).collect::<Result<Vec<String>>>()?;
        match args.json {
            true => output::print_line(serde_json::to_string(&keys)?)?,
            false => output::print_line(keys.join("\n  "))?,
        }
    }
    let items: usize = groups.iter().map(Vec::len).sum();
    output::note(format_args!("{} groups with {items} of {} items", groups.len(), index.len()?));
    Ok(())
}
