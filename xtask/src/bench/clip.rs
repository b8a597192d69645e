//! `bench clip`: CLIP ViT-B/32 beside open_clip and transformers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::program::{Program, Sample, Work, median};
use super::report::{Limit, PeerResult, Report, Row, Start};
use super::start;
use super::{ClipOptions, Compared};
use crate::libtorch::Libtorch;
use crate::markdown::write_section;
use crate::setup;
use crate::workspace::{Workspace, peer_script, stdout_of};

const PRECISIONS: [&str; 2] = ["f32", "bf16"];
const PEERS: [&str; 2] = ["open_clip", "transformers"];
/// open_clip's text tower accepts 77 tokens only.
const DYNAMIC_PEERS: [&str; 1] = ["transformers"];

/// One row of the table: our work, and the peers' work with the same result.
struct Comparison {
    title: &'static str,
    ours: &'static str,
    theirs: &'static str,
    precisions: &'static [&'static str],
    /// How the peers' work differs from ours.
    note: &'static str,
    peers: &'static [&'static str],
    iterations: u32,
    warmup: u32,
}

const BATCHES: (u32, u32) = (8, 2);
const STEPS: (u32, u32) = (4, 1); // a training step takes seconds

const COMPARISONS: [Comparison; 6] = [
    comparison("images", "images", "images", &PRECISIONS, "", &PEERS, BATCHES),
    comparison("texts, 77 tokens", "texts77", "texts77", &PRECISIONS, "", &PEERS, BATCHES),
    comparison("real captions", "texts", "texts", &PRECISIONS, "peers pad to 77", &PEERS, BATCHES),
    comparison(
        "real captions",
        "texts",
        "texts_dynamic",
        &["f32"],
        "peer pads to the longest",
        &DYNAMIC_PEERS,
        BATCHES,
    ),
    comparison("training pairs", "train", "train", &PRECISIONS, "peers pad to 77", &PEERS, STEPS),
    comparison(
        "training pairs",
        "train",
        "train_dynamic",
        &["f32"],
        "peer pads to the longest",
        &DYNAMIC_PEERS,
        STEPS,
    ),
];

const fn comparison(
    title: &'static str,
    ours: &'static str,
    theirs: &'static str,
    precisions: &'static [&'static str],
    note: &'static str,
    peers: &'static [&'static str],
    (iterations, warmup): (u32, u32),
) -> Comparison {
    Comparison { title, ours, theirs, precisions, note, peers, iterations, warmup }
}

/// The samples of one row in all rounds.
struct Measurements {
    comparison: &'static Comparison,
    precision: &'static str,
    ours: Vec<Sample>,
    peers: Vec<Vec<Sample>>,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &ClipOptions) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-clip", &["--example", "bench_clip"])?;
    let captions = write_captions(workspace, &example, &libtorch)?;
    let script = workspace.path("xtask/peers/bench_clip.py");
    let tokens = options
        .compared
        .peer_python
        .as_deref()
        .map(|python| write_tokens(python, &script, &captions))
        .transpose()?;
    let ours = Program::ours(example, libtorch.lib(), tokens.unwrap_or_else(|| captions.clone()));
    let peers: Vec<Program> = match &options.compared.peer_python {
        Some(python) => {
            PEERS.iter().map(|name| Program::peer(name, python, script.clone(), captions.clone())).collect()
        }
        None => Vec::new(),
    };

    let mut limits = PRECISIONS.map(|precision| (precision, Vec::new()));
    let mut rows = plan(options);
    for _ in options.compared.output.rounds() {
        if !rows.is_empty() {
            for (precision, gflops) in &mut limits {
                let work = Work { name: "limit", precision, iterations: 20, warmup: 5 };
                let sample = ours.measure(work)?;
                eprintln!("  limit {precision}: {:.0} GFLOP/s", sample.gflops());
                gflops.push(sample.gflops());
            }
        }
        measure_round(&ours, &peers, &mut rows)?;
    }
    let measured = limits.iter().filter(|(_, gflops)| !gflops.is_empty());
    let limits: Vec<_> =
        measured.map(|(precision, gflops)| Limit { precision, gflops: median(gflops) }).collect();
    let rows = rows.iter().map(|row| summary(row, &limits)).collect();
    let report = Report::new(16, limits, rows, measure_start(workspace, &libtorch, options)?);
    if options.only.is_empty() {
        write_section(&workspace.path("docs/benchmarks.md"), "bench clip", &report.markdown())?;
    }
    options.compared.output.print(&report, &report.markdown())
}

/// Measures the start, if it is wanted and the demo's model exists.
fn measure_start(workspace: &Workspace, libtorch: &Libtorch, options: &ClipOptions) -> Result<Option<Start>> {
    if !options.wants("start") {
        return Ok(None);
    }
    let demo = workspace.path("runs/demo/model");
    if !demo.exists() {
        eprintln!("start is not measured: runs/demo/model is missing, `cargo xtask demo` makes it");
        return Ok(None);
    }
    let Compared { peer_python, output } = &options.compared;
    start::measure(workspace, libtorch, &demo, peer_python.as_deref(), output.rounds).map(Some)
}

fn plan(options: &ClipOptions) -> Vec<Measurements> {
    let wanted = COMPARISONS.iter().filter(|comparison| options.wants(comparison.ours));
    let rows = wanted
        .flat_map(|comparison| comparison.precisions.iter().map(move |precision| (comparison, *precision)));
    rows.map(|(comparison, precision)| Measurements {
        comparison,
        precision,
        ours: Vec::new(),
        peers: vec![Vec::new(); comparison.peers.len()],
    })
    .collect()
}

/// Measures each row once: our program, then each peer.
fn measure_round(ours: &Program, peers: &[Program], rows: &mut [Measurements]) -> Result<()> {
    // Work of two rows is measured for both, so that our program and the peer always run in turn.
    for row in rows {
        let Comparison { ours: our_work, theirs, iterations, warmup, .. } = *row.comparison;
        let precision = row.precision;
        let sample = ours.measure(Work { name: our_work, precision, iterations, warmup })?;
        print_sample(ours.name, our_work, precision, &sample);
        row.ours.push(sample);
        for (name, samples) in row.comparison.peers.iter().zip(&mut row.peers) {
            let Some(peer) = peers.iter().find(|peer| peer.name == *name) else { continue };
            let sample = peer.measure(Work { name: theirs, precision, iterations, warmup })?;
            print_sample(name, theirs, precision, &sample);
            samples.push(sample);
        }
    }
    Ok(())
}

fn print_sample(program: &str, work: &str, precision: &str, sample: &Sample) {
    eprintln!("  {program} {work} {precision}: {:.1}/s, {:.0} MB", sample.rate(), sample.peak_mb);
}

fn summary(row: &Measurements, limits: &[Limit]) -> Row {
    let limit = limits.iter().find(|limit| limit.precision == row.precision);
    let limit = limit.map_or(f64::NAN, |limit| limit.gflops);
    let measured = row.comparison.peers.iter().zip(&row.peers).filter(|(_, samples)| !samples.is_empty());
    let peers = measured.map(|(name, samples)| PeerResult::new(name, &row.ours, samples, limit));
    Row::new([row.comparison.title, row.precision, row.comparison.note], &row.ours, limit, peers)
}

/// Writes the emoji set's captions, one per line, for our program and the peers.
pub fn write_captions(workspace: &Workspace, example: &Path, libtorch: &Libtorch) -> Result<PathBuf> {
    let failure = "bench_clip captions failed";
    let captions = stdout_of(workspace.program(example, libtorch).arg("captions"), failure)?;
    ensure!(!captions.is_empty(), "{failure}: it printed none");
    let path = example.with_file_name("bench_clip_captions.txt");
    fs::write(&path, captions).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Writes the captions as the peers tokenise them, so that our program computes on the same tokens.
fn write_tokens(python: &Path, script: &Path, captions: &Path) -> Result<PathBuf> {
    let failure = "the peers cannot tokenise";
    let mut command = peer_script(python, script);
    let tokens = stdout_of(command.args(["open_clip", "tokens", "--captions"]).arg(captions), failure)?;
    ensure!(!tokens.is_empty(), "{failure}: no tokens were printed");
    let path = captions.with_extension("ids");
    fs::write(&path, tokens).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
