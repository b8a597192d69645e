//! `mm embed`: embeddings of images or texts.

use crate::model::ModelArgs;
use crate::out::OutFile;
use crate::output;
use crate::reading::ReadingArgs;
use anyhow::{Context, Result};
use mm_core::checkpoint;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Embed a folder of images or a file of texts as unit rows.
#[derive(clap::Args)]
#[command(
    after_help = "The file holds `embeddings` [N, D] f32 and, in its metadata, `names`: a JSON list of N \
    file names or texts.\n\n\
                  Example: mm embed --model runs/demo/model --images photos --out photos.safetensors"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of images.
    #[arg(long, value_name = "DIR", required_unless_present = "texts", conflicts_with = "texts")]
    images: Option<PathBuf>,
    /// File with one text a line.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// The file to write, in .safetensors.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let out = OutFile::open(&args.out, &["safetensors"])?;
    let (names, rows, bad, waiting) = match (&args.images, &args.texts) {
        (Some(folder), _) => {
            let embedded = args.reading.embed(&args.model.open_image()?, folder)?;
            let names = embedded.samples.into_iter().map(|sample| sample.key).collect::<Vec<_>>();
            (names, embedded.images, embedded.bad, embedded.data_wait)
        }
        (None, Some(file)) => {
            let text = mm_data::text::read(file).context("cannot read the texts")?;
            let texts: Vec<&str> = mm_data::text::lines(&text).collect();
            anyhow::ensure!(!texts.is_empty(), "{} has no text", file.display());
            let rows = args.model.open_text()?.embed(&texts, args.reading.batch_size())?;
            (texts.iter().map(|&text| text.to_owned()).collect(), rows, Vec::new(), Duration::ZERO)
        }
        (None, None) => unreachable!("clap requires one of the two"),
    };
    let (seconds, waiting) = (begun.elapsed().as_secs_f64(), waiting.as_secs_f64());
    let metadata = ("names", serde_json::to_string(&names)?);
    checkpoint::write_with_metadata(out.path(), &[("embeddings".to_owned(), rows)], metadata)?;
    if args.json {
        let report = serde_json::json!({
            "out": args.out, "rows": names.len(), "bad_samples": bad.len(), "seconds": seconds,
             "data_wait": waiting,
        });
        output::print_line(report)?;
    } else {
        let what = format!("{} rows in {}", names.len(), args.out.display());
        output::print_line(format_args!("{what}: {}", speed(names.len(), bad.len(), seconds, waiting)))?;
    }
    let kept = format!("the {} others are in {}", names.len(), args.out.display());
    args.reading.check_bad(&bad, names.len() + bad.len(), &kept)
}

/// The speed, and the number of unreadable images.
fn speed(rows: usize, bad: usize, seconds: f64, waiting: f64) -> String {
    let rate = rows as f64 / seconds;
    let waited = if waiting > seconds / 20.0 {
        format!(", {waiting:.1} s of it waiting for images")
    } else {
        String::new()
    };
    let unread = if bad > 0 { format!("; {bad} could not be read") } else { String::new() };
    format!("{seconds:.1} s, {rate:.1}/s{waited}{unread}")
}
