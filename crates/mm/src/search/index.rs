//! `mm search index`.

use super::IndexArgs;
use crate::data::inline;
use crate::model::ModelArgs;
use crate::progress::Bars;
use crate::reading::ReadingArgs;
use crate::{output, ranks};
use anyhow::Result;
use clap::ValueEnum;
use mm_data::Dataset;
use mm_search::{
    GraphConfig, IndexDescription, IndexLocation, IndexReport, IndexSettings, RowType, SearchIndex, index_set,
};
use mm_train::{NoProgress, Progress};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Index the images of a data set, or bring its index up to date.
#[derive(clap::Args)]
#[command(
    after_help = "Images that did not change, by size and time of their file or by their digest, are not \
    embedded again; those that are gone from the data set are deleted. A call that was interrupted continues \
    where it was. Several processes share the work where they are started as those of `mm train`, by \
    torchrun or srun.\n\n\
    Examples:\n  \
    mm search index --model DIR --data photos/ --index photos.index\n  \
    mm search index --model DIR --data 'kind = \"webdataset\", path = \"shards/*.tar\"' --index web.index \
    --rows int8\n  \
    mm search index --model DIR --data photos/ --index postgres://ann@db.example/photos --rows f16"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The images: a folder with a slash in its name, or a data set as a config has it, `kind = "coco", path
    /// = "captions.json"`, or its kind alone, `emoji`.
    #[arg(long, value_name = "FOLDER|TOML")]
    data: String,
    #[command(flatten)]
    index: IndexArgs,
    /// The name of the data set in the index [default: its own].
    #[arg(long)]
    name: Option<String>,
    /// The type of the stored numbers of a new index [default: f32].
    #[arg(long, value_enum)]
    rows: Option<RowsArg>,
    /// Whether to build a graph for approximate search, or to add the new rows to it: auto builds one from
    /// 50,000 items on.
    #[arg(long, value_enum, default_value = "auto")]
    graph: GraphArg,
    /// Neighbours of a row in the graph.
    #[arg(long, value_name = "N", default_value_t = GraphConfig::default().connectivity,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=256))]
    connectivity: usize,
    /// Candidates for the neighbours of a new row of the graph.
    #[arg(long, value_name = "N", default_value_t = GraphConfig::default().expansion,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=4096))]
    expansion: usize,
    /// The longer side of the thumbnails in pixels; 0 stores none.
    #[arg(long, value_name = "PIXELS", default_value_t = 224,
        value_parser = clap::value_parser!(u32).range(0..=1024))]
    thumbnail: u32,
    /// Keep items that are gone from the data set.
    #[arg(long)]
    keep_deleted: bool,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

/// [`RowType`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum RowsArg {
    F32,
    F16,
    Int8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GraphArg {
    Auto,
    Always,
    Never,
}

/// The bound on the rendezvous of several processes: one may find much more that is new than another.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// With fewer items exact search takes milliseconds.
const GRAPH_ITEMS: usize = 50_000;

pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let (group, device) =
        ranks::join_on(&args.model.device(), TIMEOUT, &format!("\"--data\" = {:?}", args.data))?;
    let dataset: Arc<dyn Dataset> = Arc::from(inline("--data", &args.data)?.open()?);
    let set_name = args.name.clone().unwrap_or_else(|| dataset.name().to_owned());
    let location = args.index.location()?;
    let existing = location.description()?;
    let rows = match args.rows {
        Some(RowsArg::F32) => RowType::F32,
        Some(RowsArg::F16) => RowType::F16,
        Some(RowsArg::Int8) => RowType::Int8,
        None => existing.map(|description| description.rows).unwrap_or_default(),
    };
    let model = args.model.open_image_on(device)?;
    let description = IndexDescription::new(&args.model.name(), model.encoder.output_width() as usize, rows)?;
    let set = args.reading.set(&set_name, dataset)?;
    let settings = IndexSettings { thumbnail: args.thumbnail, keep_deleted: args.keep_deleted };
    let bars = Bars::default();
    let progress = if group.is_main() { &bars as &dyn Progress } else { &NoProgress };
    let context = args.reading.context(&group, progress);
    let report = index_set(&*location, &description, &model, (&set_name, &set), &settings, &context)?;
    if !group.is_main() {
        return Ok(());
    }
    build_graph(args, &*location, &bars)?;
    let name = location.name();
    print(args, &report, (&name, &*location.open()?), begun.elapsed().as_secs_f64())?;
    let kept = format!("the others are in {name}");
    args.reading.check_bad(&report.bad, set.len(), &kept)
}

/// Builds the graph or adds to it, where the arguments want one.
fn build_graph(args: &Args, location: &dyn IndexLocation, bars: &Bars) -> Result<()> {
    let wants = match args.graph {
        GraphArg::Always => true,
        GraphArg::Never => false,
        GraphArg::Auto => location.open()?.len()? >= GRAPH_ITEMS,
    };
    if !wants {
        return Ok(());
    }
    let config = GraphConfig { connectivity: args.connectivity, expansion: args.expansion };
    let progress = |done: usize, total: usize| bars.report("rows of the graph", done as u64, total as u64);
    Ok(location.build_graph(config, &progress)?)
}

fn print(
    args: &Args,
    report: &IndexReport,
    (name, index): (&str, &dyn SearchIndex),
    seconds: f64,
) -> Result<()> {
    let IndexReport { added, changed, unchanged, deleted, bad, data_wait } = report;
    let (items, graph) = (index.len()?, index.graph_len()?);
    if args.json {
        return output::print_line(serde_json::json!({
            "index": name, "items": items, "added": added, "changed": changed, "unchanged": unchanged,
            "deleted": deleted, "bad_samples": bad.len(), "graph": graph, "seconds": seconds,
            "data_wait": data_wait.as_secs_f64(),
        }));
    }
    let graph = match graph {
        Some(rows) => format!(", {rows} of them in the graph"),
        None => String::new(),
    };
    let rate = (added + changed) as f64 / seconds;
    output::print_line(format_args!(
        "{items} items in {name}{graph}: {added} new, {changed} changed, {unchanged} unchanged, {deleted} \
         deleted, {} unreadable; {seconds:.1} s, {rate:.1} embedded/s",
        bad.len(),
    ))
}
