//! `bench embed`: `mm embed` on a folder of JPEGs, and a large checkpoint from start to answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::{Program, Work, measured, median};
use super::start;
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command};

/// Options of `bench embed`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer, which also makes the photographs
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    /// JPEGs of 640x480 to embed
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    #[command(flatten)]
    output: Output,
}

/// The output of a run over the folder, ours or the peer's.
#[derive(Deserialize)]
struct Embedded {
    rows: f64,
    seconds: f64,
    #[serde(default)]
    data_wait: f64,
}

/// Our results in one precision.
#[derive(Serialize)]
struct Row {
    precision: &'static str,
    images_per_second: f64,
    /// The share of the rate at which the model embeds batches that are in memory.
    share_of_model: f64,
    share_of_limit: f64,
    /// The share of time spent waiting for images.
    share_waiting: f64,
    times_the_peer: f64,
}

#[derive(Serialize)]
struct Report {
    date: String,
    images: u32,
    rows: Vec<Row>,
    transformers_images_per_second: f64,
    start_seconds: f64,
    transformers_start_seconds: f64,
}

/// Iterations and warm-up of the model alone, on batches in memory.
const ALONE: (u32, u32) = (8, 2);

/// The programs and folders of the benchmark.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    mm: PathBuf,
    /// Measures the model alone, on batches that are in memory.
    alone: Program,
    python: &'a Path,
    model: PathBuf,
    images: PathBuf,
}

/// Our measurements in one precision, one per round.
struct Measurements {
    precision: &'static str,
    rates: Vec<f64>,
    of_model: Vec<f64>,
    of_limit: Vec<f64>,
    waiting: Vec<f64>,
    of_peer: Vec<f64>,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-clip", &["--example", "bench_clip"])?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let model = example.with_file_name("bench_embed_model");
    let images = example.with_file_name("bench_embed_images");
    make_model(workspace, &libtorch, &example, &model)?;
    let alone = Program::ours(example, libtorch.lib(), PathBuf::new());
    let python = &options.peer_python;
    let bench = Bench { workspace, libtorch, mm, alone, python, model, images };
    bench.make_photographs(options.images)?;

    let mut ours: Vec<_> = bench.alone.precisions()?.into_iter().map(Measurements::new).collect();
    let mut theirs = Vec::new();
    for _ in options.output.rounds() {
        let mut peer = bench.peer(&["embed".as_ref(), &bench.model, &bench.images]);
        let peer: Embedded = measured(&mut peer, "transformers")?;
        let peer_rate = peer.rows / peer.seconds;
        eprintln!("  transformers: {peer_rate:.1} images/s");
        theirs.push(peer_rate);
        for precision in &mut ours {
            bench.measure(precision, peer_rate)?;
        }
    }
    let rounds = options.output.rounds;
    let start = start::measure(workspace, &bench.libtorch, &bench.model, Some(python), rounds)?;
    let report = Report {
        date: today(),
        images: options.images,
        rows: ours.iter().map(Measurements::row).collect(),
        transformers_images_per_second: median(&theirs),
        start_seconds: start.seconds,
        transformers_start_seconds: start.transformers_seconds.unwrap_or(f64::NAN),
    };
    if options.images >= 2000 {
        write_section(&workspace.path("docs/benchmarks.md"), "bench embed", &markdown(&report))?;
    }
    options.output.print(&report, &markdown(&report))
}

impl Bench<'_> {
    fn peer(&self, arguments: &[&Path]) -> Command {
        let mut command = peer_script(self.python, &self.workspace.path("xtask/peers/bench_embed.py"));
        command.args(arguments);
        command
    }

    /// Writes the photographs, if an earlier run has not.
    fn make_photographs(&self, images: u32) -> Result<()> {
        if fs::read_dir(&self.images).map_or(0, Iterator::count) == images as usize {
            return Ok(());
        }
        let _ = fs::remove_dir_all(&self.images);
        let photos = self.workspace.path("data/goldens/images/photos");
        let count = images.to_string();
        run_command(&mut self.peer(&["photos".as_ref(), &photos, &self.images, count.as_ref()]))
    }

    /// Measures one precision once; `peer_rate` is the peer's rate in the same round.
    fn measure(&self, measurements: &mut Measurements, peer_rate: f64) -> Result<()> {
        let precision = measurements.precision;
        let limit = self.alone.limit(precision)?;
        let alone = self.alone.measure(Work::new("images", precision, ALONE))?;
        let mut command = self.workspace.program(&self.mm, &self.libtorch);
        command.args(["embed", "--json", "--batch-size", "16", "--precision", precision]);
        command.arg("--model").arg(&self.model).arg("--images").arg(&self.images);
        command.arg("--out").arg(self.model.with_file_name("bench_embed_rows.safetensors"));
        let ours: Embedded = measured(&mut command, "mm embed")?;
        let rate = ours.rows / ours.seconds;
        eprintln!("  mm {precision}: {rate:.1} images/s, {:.1} without reading", alone.rate());
        measurements.rates.push(rate);
        measurements.of_model.push(rate / alone.rate());
        measurements.of_limit.push(alone.gflops() * rate / alone.rate() / limit);
        measurements.waiting.push(ours.data_wait / ours.seconds);
        measurements.of_peer.push(rate / peer_rate);
        Ok(())
    }
}

/// Writes the folder of a ViT-B/32 with random weights, if an earlier run has not.
pub fn make_model(workspace: &Workspace, libtorch: &Libtorch, example: &Path, model: &Path) -> Result<()> {
    if model.join("config.json").exists() {
        return Ok(());
    }
    fs::create_dir_all(model).with_context(|| format!("cannot make {}", model.display()))?;
    run_command(workspace.program(example, libtorch).arg("save").arg(model))
}

impl Measurements {
    fn new(precision: &'static str) -> Self {
        Self {
            precision,
            rates: Vec::new(),
            of_model: Vec::new(),
            of_limit: Vec::new(),
            waiting: Vec::new(),
            of_peer: Vec::new(),
        }
    }

    fn row(&self) -> Row {
        Row {
            precision: self.precision,
            images_per_second: median(&self.rates),
            share_of_model: median(&self.of_model),
            share_of_limit: median(&self.of_limit),
            share_waiting: median(&self.waiting),
            times_the_peer: median(&self.of_peer),
        }
    }
}

fn markdown(report: &Report) -> String {
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    let head = ["program", "precision", "images/s", "of the model alone", "of the limit", "waiting", "mm is"];
    let mut lines = vec![head.map(String::from)];
    let peer = format!("{:.1}", report.transformers_images_per_second);
    lines.push(["transformers", "f32", &peer, "", "", "", ""].map(String::from));
    lines.extend(report.rows.iter().map(|row| {
        [
            "mm".to_owned(),
            row.precision.to_owned(),
            format!("{:.1}", row.images_per_second),
            percent(row.share_of_model),
            percent(row.share_of_limit),
            percent(row.share_waiting),
            format!("{:.2}x", row.times_the_peer),
        ]
    }));
    let (ours, theirs) = (report.start_seconds, report.transformers_start_seconds);
    format!(
        "Measured on {}, {}, {} JPEGs of 640x480, ViT-B/32, batch 16, medians.\n\n{}\n\
         `mm classify` with the 605 MB checkpoint, start to answer: {ours:.2} s;\n\
         transformers: {theirs:.2} s ({:.2}x).\n",
        report.date,
        processor::name(),
        report.images,
        table(&lines),
        ours / theirs,
    )
}
