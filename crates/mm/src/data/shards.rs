//! `mm data shards`: pack a data set.

use super::set::SetArgs;
use super::{ensure_some_good, stats};
use crate::model::ModelArgs;
use crate::{out, output, progress, table};
use anyhow::Result;
use mm_clip::ClipPipeline;
use mm_data::shards::{Filter, PackOptions, Packing, Progress, Shard, Summary};
use mm_image::RgbImage;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

/// Pack a data set as WebDataset shards, with or without filters.
#[derive(clap::Args)]
#[command(after_help = "\
A shard is a range of the data set's samples, each named by its number: KEY.jpg, png or webp as it was,
KEY.txt with the canonical caption, KEY.json with all that is known, KEY.cls where the label is a whole
number. Any number of workers makes the same bytes. Run it again to go on with a packing that was ended,
or to check and mend one. A sample that cannot be read is left out, counted, and named in bad_samples.jsonl.

Filters; the canonical caption is meant:
  caption_words=2..40    caption_chars=5..300    either end may be left out
  min_side=200           the short side, in pixels
  max_side=8000          the long side, in pixels
  max_aspect=3           the long side over the short one
  clip_score=0.25        the least cosine of image and caption, by --model
  duplicates=4           of images that look the same (4 of 64 bits of their perceptual hashes
                         may differ, 16 at most), the first that passes the other filters stays

Examples:
  mm data shards --data 'kind = \"folder\", path = \"photos\"' --out shards --filter min_side=200
  mm data shards --config run.toml --source eval.held_out --out shards \\
      --filter clip_score=0.25 --filter duplicates=4 --model openai/clip-vit-base-patch32")]
pub struct Args {
    #[command(flatten)]
    set: SetArgs,
    /// The folder to pack into, or to continue in.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Samples of the data set, kept or not, to a shard.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_shard: u32,
    /// Condition for keeping a sample; may be given several times.
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<Filter>,
    /// Decode every image completely and skip the damaged ones; otherwise only headers are read.
    #[arg(long)]
    check_images: bool,
    /// Samples that may be unreadable before the command fails [default: any number].
    #[arg(long, value_name = "N")]
    max_bad_samples: Option<usize>,
    /// Threads, a shard each at a time; 0: one a core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// Verify existing shards by their checksums, not only by their sizes.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    model: Option<ModelArgs>,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let (data, source) = args.set.open()?;
    let scored = args.filters.iter().any(|filter| matches!(filter, Filter::ClipScore(_)));
    anyhow::ensure!(!scored || args.model.is_some(), "--filter clip_score needs a --model");
    out::try_folder(&args.out)?;
    // One at a time: a batch takes all cores.
    let model = args.model.as_ref().filter(|_| scored).map(ModelArgs::open).transpose()?.map(Mutex::new);
    let score = model.as_ref().map(|model| {
        move |images: &[RgbImage], captions: &[&str]| {
            let model = model.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            cosines(&model, images, captions).map_err(|error| mm_data::Error::Score(error.into()))
        }
    });
    let options = PackOptions {
        samples_per_shard: args.samples_per_shard as usize,
        filters: args.filters.clone(),
        check_images: args.check_images,
        max_bad_samples: args.max_bad_samples,
        workers: args.workers,
        verify: args.verify,
        model: args.model.as_ref().map(ModelArgs::name),
    };
    let bar = progress::bar(source.len() as u64, "samples");
    let show = |Progress { writing, done, of }: Progress| {
        bar.set_message(if writing { "writing" } else { "comparing" });
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let score = score.as_ref().map(|score| score as mm_data::shards::Score);
    let summary =
        Packing { source: &*source, data: &data, options, score, progress: &show }.run(&args.out)?;
    bar.finish_and_clear();
    print(args, &summary, begun.elapsed().as_secs_f64())?;
    ensure_some_good(summary.read - summary.all.bad.values().sum::<usize>(), summary.read)
}

/// The cosines of images and captions. A caption that the tokenizer refuses has none; the others
/// are not affected.
fn cosines(model: &ClipPipeline, images: &[RgbImage], captions: &[&str]) -> mm_clip::Result<Vec<f32>> {
    let together = model.cosines(images, captions);
    if together.is_ok() || captions.len() < 2 {
        return together;
    }
    let one = |(image, caption): (&RgbImage, &&str)| model.cosines(std::slice::from_ref(image), &[caption]);
    let one_by_one: Vec<_> = images.iter().zip(captions).map(one).collect();
    if one_by_one.iter().all(Result::is_err) {
        return together;
    }
    Ok(one_by_one.into_iter().map(|cosine| cosine.map_or(f32::NAN, |cosine| cosine[0])).collect())
}

fn print(args: &Args, summary: &Summary, seconds: f64) -> Result<()> {
    let Summary { read, all: Shard { samples, bytes, bad, filtered, .. }, shards, made, bytes_made, stats } =
        summary;
    let rate = *bytes_made as f64 / 1e6 / seconds;
    if args.json {
        let report = json!({
            "out": args.out, "read": read, "samples": samples, "shards": shards, "bytes": bytes, "bad": bad,
            "filtered": filtered, "made": made, "bytes_made": bytes_made, "seconds": seconds,
            "stats": stats::json(stats),
        });
        return output::print_line(report);
    }
    let row = |name: &str, count: usize| {
        vec![name.to_owned(), count.to_string(), table::percent(count as f64 / (*read).max(1) as f64)]
    };
    let mut rows = vec![row("read", *read), row("packed", *samples)];
    rows.extend(bad.iter().map(|(fault, count)| row(&format!("dropped: {fault}"), *count)));
    rows.extend(filtered.iter().map(|(filter, count)| row(&format!("dropped by {filter}"), *count)));
    let made = match made {
        0 => "all there already".to_owned(),
        made => format!("{made} made now in {seconds:.1} s, {rate:.1} MB/s"),
    };
    let named = if bad.is_empty() { "" } else { "; bad_samples.jsonl names what cannot be read" };
    output::print(&format!(
        "{}\n{}\n{} of {} in {}: {made}{named}\n",
        table::render(&["samples", "", ""], &rows),
        stats::render(stats),
        if *shards == 1 { "1 shard".to_owned() } else { format!("{shards} shards") },
        stats::size(*bytes as f64),
        args.out.display()
    ))
}
