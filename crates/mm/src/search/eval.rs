//! `mm search eval`.

use super::{IndexArgs, open_model, own_model};
use crate::model::ModelArgs;
use crate::{output, table};
use anyhow::{Context, Result};
use mm_search::to_vectors;
use std::path::PathBuf;

/// Measure how much of exact search the graph of an index finds, and how fast.
#[derive(clap::Args)]
#[command(
    mut_arg("model", own_model),
    after_help = "Examples:\n  \
    mm search eval --index photos.index --items 1000\n  \
    mm search eval --index photos.index --texts queries.txt -k 10"
)]
pub struct Args {
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Queries: a file with one text a line.
    #[arg(long, value_name = "FILE", required_unless_present = "items")]
    texts: Option<PathBuf>,
    /// Queries: this many items of the index, evenly spaced.
    #[arg(long, value_name = "N", conflicts_with = "texts")]
    items: Option<usize>,
    /// Items that a query is to find.
    #[arg(long, short, value_name = "N", default_value_t = 10)]
    k: usize,
    /// Numbers of candidates to measure.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "16,32,64,128,256,512")]
    candidates: Vec<usize>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Texts that are embedded at once.
const BATCH: usize = 32;

pub fn run(args: &Args) -> Result<()> {
    let index = args.index.open()?;
    let queries = match (&args.texts, args.items) {
        (Some(file), _) => {
            let text = mm_data::text::read(file).context("cannot read the texts")?;
            let texts: Vec<&str> = mm_data::text::lines(&text).collect();
            let model = open_model(&args.model, &args.index, &*index)?;
            to_vectors(&model.text.embed(&texts, BATCH)?)?
        }
        (None, count) => index.sample(count.unwrap_or_default())?,
    };
    let report = index.recall(&queries, args.k, &args.candidates)?;
    if args.json {
        return output::print_line(serde_json::to_string(&report)?);
    }
    let mut rows =
        vec![vec!["all (exact)".to_owned(), "100.00 %".to_owned(), rate(report.exact_queries_per_second)]];
    rows.extend(report.graph.iter().map(|row| {
        let recall = format!("{:.2} %", 100.0 * row.recall);
        vec![row.candidates.to_string(), recall, rate(row.queries_per_second)]
    }));
    let recall = format!("recall@{}", report.k);
    output::print_line(table::render(&["candidates", &recall, "queries/s"], &rows))
}

fn rate(queries_per_second: f64) -> String {
    format!("{queries_per_second:.0}")
}
