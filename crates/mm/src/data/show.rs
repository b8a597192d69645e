use super::set::SetArgs;
use anyhow::{Context, Result};
use mm_core::checkpoint::write_atomically;
use mm_data::sheet::{Choice, Sheet};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Look at some samples of a data set: a page with pictures, captions and questions, or one picture.
#[derive(clap::Args)]
#[command(
    after_help = "A sample that cannot be read is shown as such: on the page with the reason, in the picture as a red cross.\n\n\
                  Examples:\n  mm data show --data emoji --out emoji.html\n  \
                  mm data show --data 'kind = \"shapes\", split = \"held_out\"' --out shapes.png --count 36 --seed 7"
)]
pub struct Args {
    #[command(flatten)]
    set: SetArgs,
    /// What to write: a page that needs no other file (.html) or a picture (.png).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Samples to show.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// What decides which samples are drawn.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "first")]
    seed: u64,
    /// Show the first ones and draw none.
    #[arg(long)]
    first: bool,
    /// Print one JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let extension = args.out.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
    anyhow::ensure!(
        ["html", "png"].contains(&extension.as_str()),
        "{}: a sheet is a page or a picture: name a file in .html or .png",
        args.out.display()
    );
    let (_, source) = args.set.open()?;
    let choice = if args.first { Choice::First } else { Choice::Drawn(args.seed) };
    let sheet = Sheet::of(&*source, args.count.into(), choice)?;
    write_atomically(&args.out, |to| {
        let written = match extension.as_str() {
            "png" => {
                sheet.picture().save_with_format(to, mm_data::image::ImageFormat::Png).map_err(std::io::Error::other)
            }
            _ => std::fs::write(to, sheet.page()),
        };
        written.map_err(|source| mm_core::Error::io("write", &args.out, source))
    })
    .with_context(|| format!("cannot write the sheet {}", args.out.display()))?;
    let bad = sheet.tiles.iter().filter(|tile| tile.shown.is_err()).count();
    let (shown, total) = (sheet.tiles.len(), sheet.total);
    if args.json {
        println!("{}", serde_json::json!({ "out": args.out, "shown": shown, "samples": total, "bad_samples": bad }));
        return Ok(());
    }
    let unread = if bad > 0 { format!("; {bad} of them cannot be read") } else { String::new() };
    println!("{shown} of {total} samples in {}{unread}", args.out.display());
    Ok(())
}
