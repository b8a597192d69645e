//! `bench embed`: a folder of JPEGs to rows, as users run it, and a large checkpoint from start to answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::{Program, Work, median};
use super::start;
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command, stdout_of};

/// Options of `bench embed`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python that has the peer, which also makes the photographs
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    /// JPEGs of 640x480 to embed
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    #[command(flatten)]
    output: Output,
}

/// What a whole run over the folder prints, ours and the peer's.
#[derive(Deserialize)]
struct Embedded {
    rows: f64,
    seconds: f64,
    #[serde(default)]
    data_wait: f64,
}

/// Our side in one precision.
#[derive(Serialize)]
struct Row {
    precision: &'static str,
    images_per_second: f64,
    /// Of the rate at which the model alone embeds batches that are there already.
    share_of_model: f64,
    share_of_limit: f64,
    /// Of the time, how much the model waited for images.
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

/// Work that one process measures on batches that are in memory.
const ALONE: (u32, u32) = (8, 2);
const LIMIT: (u32, u32) = (20, 5);

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-clip", &["--example", "bench_clip"])?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let script = workspace.path("xtask/peers/bench_embed.py");
    let (model, images) =
        (example.with_file_name("bench_embed_model"), example.with_file_name("bench_embed_images"));
    prepare(workspace, &libtorch, &example, &model)?;
    let peer = |arguments: &[&Path]| {
        let mut command = peer_script(&options.peer_python, &script);
        command.args(arguments);
        command
    };
    if fs::read_dir(&images).map_or(0, Iterator::count) != options.images as usize {
        let _ = fs::remove_dir_all(&images);
        let (photos, count) = (workspace.path("data/goldens/images/photos"), options.images.to_string());
        run_command(&mut peer(&[Path::new("photos"), &photos, &images, Path::new(&count)]))?;
    }

    let alone = Program::ours(example, libtorch.lib(), PathBuf::new());
    let rows_file = model.with_file_name("bench_embed_rows.safetensors");
    let mut seen: Vec<Seen> = precisions(&alone)?.into_iter().map(Seen::new).collect();
    let mut theirs = Vec::new();
    for round in 0..options.output.rounds {
        eprintln!("round {} of {}", round + 1, options.output.rounds);
        let peers = embedded(&mut peer(&[Path::new("embed"), &model, &images]))?;
        let peer_rate = peers.rows / peers.seconds;
        theirs.push(peer_rate);
        eprintln!("  transformers: {peer_rate:.1} images/s");
        for seen in &mut seen {
            let measure = |name, counts| alone.measure(Work::new(name, seen.precision, counts));
            let (limit, model_alone) = (measure("limit", LIMIT)?, measure("images", ALONE)?);
            let mut ours = workspace.program(&mm, &libtorch);
            ours.args(["embed", "--json", "--batch-size", "16", "--precision", seen.precision, "--model"])
                .arg(&model);
            let ours = embedded(ours.arg("--images").arg(&images).arg("--out").arg(&rows_file))?;
            let rate = ours.rows / ours.seconds;
            eprintln!(
                "  mm {}: {rate:.1} images/s, {:.1} without reading",
                seen.precision,
                model_alone.rate()
            );
            seen.rates.push(rate);
            seen.of_model.push(rate / model_alone.rate());
            seen.of_limit.push(model_alone.gflops() * rate / model_alone.rate() / limit.gflops());
            seen.waiting.push(ours.data_wait / ours.seconds);
            seen.of_peer.push(rate / peer_rate);
        }
    }
    let start =
        start::measure(workspace, &libtorch, &model, Some(&options.peer_python), options.output.rounds)?;
    let report = Report {
        date: today(),
        images: options.images,
        rows: seen.iter().map(Seen::row).collect(),
        transformers_images_per_second: median(&theirs),
        start_seconds: start.seconds,
        transformers_start_seconds: start.transformers_seconds.unwrap_or(f64::NAN),
    };
    if options.images >= 2000 {
        write_section(&workspace.path("docs/benchmarks.md"), "bench embed", &markdown(&report))?;
    }
    match options.output.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!("{}", markdown(&report)),
    }
    Ok(())
}

/// ViT-B/32 with random weights in a folder, made once.
fn prepare(workspace: &Workspace, libtorch: &Libtorch, example: &Path, model: &Path) -> Result<()> {
    if model.join("config.json").exists() {
        return Ok(());
    }
    fs::create_dir_all(model).with_context(|| format!("cannot make {}", model.display()))?;
    run_command(workspace.program(example, libtorch).arg("save").arg(model))
}

/// All precisions, bf16 only where its products are as fast as f32's: nobody takes it elsewhere.
fn precisions(ours: &Program) -> Result<Vec<&'static str>> {
    let limit =
        |precision| Ok::<f64, anyhow::Error>(ours.measure(Work::new("limit", precision, LIMIT))?.gflops());
    let has_bf16 = limit("bf16")? >= limit("f32")?;
    Ok(["f32", "bf16", "int8"].into_iter().filter(|precision| has_bf16 || *precision != "bf16").collect())
}

fn embedded(command: &mut Command) -> Result<Embedded> {
    let program = command.get_program().display().to_string();
    let printed = stdout_of(command, &format!("{program} could not embed"))?;
    serde_json::from_str(printed.lines().last().unwrap_or_default())
        .with_context(|| format!("{program} printed no result"))
}

/// What one precision saw in all rounds.
struct Seen {
    precision: &'static str,
    rates: Vec<f64>,
    of_model: Vec<f64>,
    of_limit: Vec<f64>,
    waiting: Vec<f64>,
    of_peer: Vec<f64>,
}

impl Seen {
    fn new(precision: &'static str) -> Self {
        let none = Vec::new;
        Self {
            precision,
            rates: none(),
            of_model: none(),
            of_limit: none(),
            waiting: none(),
            of_peer: none(),
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
         `mm classify` with the 605 MB checkpoint, start to answer: {ours:.2} s; transformers: {theirs:.2} s ({:.2}x).\n",
        report.date,
        processor::name(),
        report.images,
        table(&lines),
        ours / theirs,
    )
}
