//! `mm data overlap`: what two data sets share.

use super::ensure_some_good;
use super::set::{SetArgs, inline};
use crate::{output, progress, table};
use anyhow::Result;
use mm_data::{Overlap, OverlapSet, Shared, SharedExample};

/// Find the images, questions and groups that two data sets share, such as a test set and a training set.
#[derive(clap::Args)]
#[command(after_help = "\
Numbers are those of the first data set, which is usually the test set. An image is compared by its bytes, by
its pixels and by its perceptual hash, which ignores color and fine detail; a question by its text, alone and
with the pixels of its image; a group is a patient, a case or an article.

Examples:
  mm data overlap --data 'kind = \"easy_vqa\", path = \"data/easy-vqa\", split = \"test\"' \\
      --with 'kind = \"easy_vqa\", path = \"data/easy-vqa\"'
  mm data overlap --config run.toml --source eval.test --with 'kind = \"slake\", path = \"train.json\"' --json")]
pub struct Args {
    #[command(flatten)]
    set: SetArgs,
    /// The data set to compare with, as `--data`.
    #[arg(long, value_name = "TOML")]
    with: String,
    /// Threads; 0: one a core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// Examples of each kind that are printed.
const EXAMPLES: usize = 3;

pub fn run(args: &Args) -> Result<()> {
    let (_, data) = args.set.open()?;
    let with = inline("--with", &args.with)?.open()?;
    let bar = progress::bar((data.len() + with.len()) as u64, "samples");
    let overlap = Overlap::of(&*data, &*with, args.workers, &|done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if args.json {
        output::print_line(serde_json::to_value(&overlap)?)?;
    } else {
        output::print(&render(&overlap))?;
    }
    ensure_some_good(overlap.data.samples as usize, data.len())?;
    ensure_some_good(overlap.with.samples as usize, with.len())
}

/// All numbers as tables.
fn render(overlap: &Overlap) -> String {
    let Overlap { data, with, files, pixels, lookalikes, questions, image_questions, groups } = overlap;
    let kinds = [
        ("images, same bytes", files),
        ("images, same pixels", pixels),
        ("images that look alike", lookalikes),
        ("questions", questions),
        ("questions with their image", image_questions),
        ("groups", groups),
    ];
    let row = |(name, shared): (&str, &Shared)| {
        let Shared { distinct, shared, total, total_shared, .. } = shared;
        let percent = |part: u64, all: u64| table::percent(part as f64 / all.max(1) as f64);
        vec![
            name.to_owned(),
            distinct.to_string(),
            shared.to_string(),
            percent(*shared, *distinct),
            total.to_string(),
            total_shared.to_string(),
            percent(*total_shared, *total),
        ]
    };
    let set = |OverlapSet { name, samples, bad }: &OverlapSet| {
        let bad: Vec<String> = bad.iter().map(|(fault, count)| format!(", {fault}: {count}")).collect();
        format!("{name}: {samples} samples{}\n", bad.concat())
    };
    let rows: Vec<Vec<String>> = kinds.into_iter().filter(|(_, shared)| shared.total > 0).map(row).collect();
    let header = ["of the first set", "different", "shared", "", "all", "shared", ""];
    let mut text = format!("{}{}\n{}", set(data), set(with), table::render(&header, &rows));
    for (name, Shared { examples, .. }) in kinds {
        for SharedExample { data, with, text: example } in examples.iter().take(EXAMPLES) {
            text += &format!("\n{name}: {data} = {with} {example}");
        }
    }
    text.trim_end().to_owned() + "\n"
}
