//! `mm data show`: look at samples.

use super::ensure_some_good;
use super::set::SetArgs;
use crate::out::OutFile;
use crate::output;
use anyhow::Result;
use mm_data::sheet::{Choice, Sheet};
use mm_image::image::ImageFormat;
use std::path::PathBuf;

/// Show samples of a data set: a page with pictures, captions and questions, or one picture.
#[derive(clap::Args)]
#[command(
    after_help = "A sample that cannot be read is shown as such: on the page with the reason, in the picture as a red cross.\n\n\
                  Examples:\n  mm data show --data emoji --out emoji.html\n  \
                  mm data show --data 'kind = \"shapes\", split = \"held_out\"' --out shapes.png --count 36 --seed 7"
)]
pub struct Args {
    #[command(flatten)]
    set: SetArgs,
    /// The file to write: a self-contained page (.html) or a picture (.png).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Samples to show.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Seed of the random choice.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "first")]
    seed: u64,
    /// Show the first samples instead of random ones.
    #[arg(long)]
    first: bool,
    /// Print one JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let out = OutFile::open(&args.out, &["html", "png"])?;
    let (_, source) = args.set.open()?;
    let choice = if args.first { Choice::First } else { Choice::Drawn(args.seed) };
    let sheet = Sheet::of(&*source, args.count.into(), choice)?;
    match out.extension() {
        "png" => out.write_image(&sheet.picture(), ImageFormat::Png)?,
        _ => out.write(|to| std::fs::write(to, sheet.page()))?,
    }
    let bad = sheet.tiles.iter().filter(|tile| tile.shown.is_err()).count();
    let (shown, total) = (sheet.tiles.len(), sheet.total);
    if args.json {
        let report =
            serde_json::json!({ "out": args.out, "shown": shown, "samples": total, "bad_samples": bad });
        output::print_line(report)?;
    } else {
        let unread = if bad > 0 { format!("; {bad} of them cannot be read") } else { String::new() };
        output::print_line(format_args!("{shown} of {total} samples in {}{unread}", args.out.display()))?;
    }
    ensure_some_good(shown - bad, shown)
}
