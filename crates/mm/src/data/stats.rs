//! `mm data stats`: count a data set.

use super::ensure_some_good;
use super::set::SetArgs;
use crate::{output, progress, table};
use anyhow::Result;
use mm_data::{Measure, Spread, Stats};
use serde_json::json;

/// Count the contents of a data set: sizes, captions, labels, questions, bad samples.
#[derive(clap::Args)]
#[command(
    after_help = "Of images the headers alone are read. A percentile is the least value that so many percent do not exceed.\n\n\
                  Examples:\n  mm data stats --data shapes\n  \
                  mm data stats --data 'kind = \"webdataset\", shards = \"shards/*.tar\"' --json"
)]
pub struct Args {
    #[command(flatten)]
    set: SetArgs,
    /// Threads; 0: one a core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// Labels that are listed.
const LABELS: usize = 20;
/// Ranges of a histogram.
const BINS: u32 = 12;
/// Characters of the longest bar.
const BAR: f64 = 40.0;

pub fn run(args: &Args) -> Result<()> {
    let (_, source) = args.set.open()?;
    let bar = progress::bar(source.len() as u64, "samples");
    let stats = Stats::of(&*source, args.workers, &|done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if args.json {
        output::print_line(json(&stats))?;
    } else {
        output::print(&render(&stats))?;
    }
    ensure_some_good(stats.samples as usize, (stats.samples + stats.bad.values().sum::<u64>()) as usize)
}

/// The measures with their names and units.
fn measures(stats: &Stats) -> [(&'static str, &Measure, f64); 7] {
    [
        ("width", &stats.width, 1.0),
        ("height", &stats.height, 1.0),
        ("aspect", &stats.aspect, 100.0),
        ("image_bytes", &stats.image_bytes, 1.0),
        ("captions", &stats.captions, 1.0),
        ("caption_words", &stats.caption_words, 1.0),
        ("caption_chars", &stats.caption_chars, 1.0),
    ]
}

/// All numbers as JSON.
pub fn json(stats: &Stats) -> serde_json::Value {
    let mut report = json!({
        "samples": stats.samples, "formats": stats.formats, "bytes": stats.image_bytes.total(),
        "labels": stats.labels, "questions": stats.questions, "variants": stats.variants,
        "bad": stats.bad, "warned": stats.warned,
    });
    for (name, measure, unit) in measures(stats) {
        report[name] = json!(measure.spread(unit));
    }
    for (name, measure) in [("caption_words", &stats.caption_words), ("caption_chars", &stats.caption_chars)]
    {
        if report[name].is_object() {
            report[name]["histogram"] = json!(measure.histogram(BINS));
        }
    }
    report
}

/// All numbers as tables.
pub fn render(stats: &Stats) -> String {
    let counted = |counts: Vec<(String, u64)>| -> Vec<Vec<String>> {
        counts.into_iter().map(|(name, count)| vec![name, count.to_string()]).collect()
    };
    let mut counts = vec![("samples".to_owned(), stats.samples)];
    counts.extend(stats.formats.iter().map(|(format, count)| (format!("images in {format}"), *count)));
    counts.extend(Some(("variants of others".to_owned(), stats.variants)).filter(|(_, count)| *count > 0));
    counts.extend(
        Some(("read without a part of them".to_owned(), stats.warned)).filter(|(_, count)| *count > 0),
    );
    counts.extend(stats.bad.iter().map(|(fault, count)| (format!("bad: {fault}"), *count)));
    let mut text = table::render(&["in all", ""], &counted(counts));
    text += &format!("\n{} of images\n", size(stats.image_bytes.total() as f64));

    let spread = |(name, measure, unit): (&str, &Measure, f64)| {
        let Spread { min, p5, p25, median, p75, p95, max, mean } = measure.spread(unit)?;
        let number = |value: f64| match name {
            "image_bytes" => size(value),
            _ if value.fract() == 0.0 => format!("{value}"),
            _ => format!("{value:.2}"),
        };
        Some(
            std::iter::once(name.replace('_', " "))
                .chain([min, p5, p25, median, p75, p95, max, mean].map(number))
                .collect(),
        )
    };
    let rows: Vec<Vec<String>> = measures(stats).into_iter().filter_map(spread).collect();
    if !rows.is_empty() {
        let header = ["", "min", "5 %", "25 %", "median", "75 %", "95 %", "max", "mean"];
        text += &format!("\n{}", table::render(&header, &rows));
    }
    text += &histogram("words of the canonical caption", &stats.caption_words);
    let labels = stats.top_labels(LABELS);
    if !labels.is_empty() {
        let labelled: u64 = stats.labels.values().sum();
        let rows = counted(labels.iter().map(|(label, count)| (table::shortened(label), *count)).collect());
        let head = format!("label ({} different)", stats.labels.len());
        text += &format!("\n{}", table::render(&[&head, "samples"], &rows));
        if stats.labels.len() > labels.len() {
            let shown: u64 = labels.iter().map(|(_, count)| count).sum();
            text += &format!("and {} samples of other labels\n", labelled - shown);
        }
    }
    if !stats.questions.is_empty() {
        let kind = |(kind, count): (&String, &u64)| {
            (if kind.is_empty() { "of no kind" } else { kind }.to_owned(), *count)
        };
        text += &format!(
            "\n{}",
            table::render(&["questions", ""], &counted(stats.questions.iter().map(kind).collect()))
        );
    }
    text
}

fn histogram(name: &str, measure: &Measure) -> String {
    let bins = measure.histogram(BINS);
    let most = bins.iter().map(|(_, _, count)| *count).max().unwrap_or(0);
    if bins.len() < 2 {
        return String::new();
    }
    let range = |from: u32, to: u32| if from == to { from.to_string() } else { format!("{from}–{to}") };
    let width = bins.iter().map(|(from, to, _)| range(*from, *to).chars().count()).max().unwrap_or(0);
    let line = |(from, to, count): &(u32, u32, u64)| {
        let bar = "━".repeat((*count as f64 / most as f64 * BAR).round() as usize);
        format!("{:>width$}  {bar} {count}\n", range(*from, *to))
    };
    format!("\n{name}\n{}", bins.iter().map(line).collect::<String>())
}

/// Bytes with a unit.
pub fn size(bytes: f64) -> String {
    match bytes {
        0.0..1e3 => format!("{bytes:.0} B"),
        1e3..1e6 => format!("{:.1} kB", bytes / 1e3),
        1e6..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}
