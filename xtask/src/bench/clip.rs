//! `bench clip`: what is measured, in which order.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::ClipOptions;
use super::program::{Program, Sample, Work, median};
use super::report::{Limit, PeerResult, Report, Row};
use super::start;
use crate::libtorch::Libtorch;
use crate::markdown::write_section;
use crate::setup;
use crate::workspace::{Workspace, peer_script, stdout_of};

const PRECISIONS: [&str; 2] = ["f32", "bf16"];
const PEERS: [&str; 2] = ["open_clip", "transformers"];
/// open_clip's text tower takes 77 tokens and no other length.
const DYNAMIC_PEERS: [&str; 1] = ["transformers"];

/// One row of the table: our work beside the peers' that answers the same question.
struct Comparison {
    title: &'static str,
    ours: &'static str,
    theirs: &'static str,
    precisions: &'static [&'static str],
    /// Work that is not the same is named as such.
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

/// What one row saw in all rounds.
struct Seen {
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
    let mut seen = plan(options);
    for round in 0..options.compared.output.rounds {
        eprintln!("round {} of {}", round + 1, options.compared.output.rounds);
        if !seen.is_empty() {
            for (precision, found) in &mut limits {
                let work = Work { name: "limit", precision, iterations: 20, warmup: 5 };
                let sample = ours.measure(work)?;
                eprintln!("  limit {precision}: {:.0} GFLOP/s", sample.gflops());
                found.push(sample.gflops());
            }
        }
        measure_round(&ours, &peers, &mut seen)?;
    }
    let limits: Vec<_> = limits
        .iter()
        .filter(|(_, found)| !found.is_empty())
        .map(|(precision, found)| Limit { precision, gflops: median(found) })
        .collect();
    let rows = seen.iter().map(|seen| summary(seen, &limits)).collect();
    let demo = workspace.path("runs/demo/model");
    let start = match (options.wants("start"), demo.exists()) {
        (true, true) => Some(start::measure(
            workspace,
            &libtorch,
            &demo,
            options.compared.peer_python.as_deref(),
            options.compared.output.rounds,
        )?),
        (true, false) => {
            eprintln!("start is not measured: runs/demo/model is missing, `cargo xtask demo` makes it");
            None
        }
        (false, _) => None,
    };
    let report = Report::new(16, limits, rows, start);
    if options.only.is_empty() {
        write_section(&workspace.path("docs/benchmarks.md"), "bench clip", &report.markdown())?;
    }
    if options.compared.output.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.markdown());
    }
    Ok(())
}

fn plan(options: &ClipOptions) -> Vec<Seen> {
    let wanted = COMPARISONS.iter().filter(|comparison| options.wants(comparison.ours));
    let rows = wanted
        .flat_map(|comparison| comparison.precisions.iter().map(move |precision| (comparison, *precision)));
    rows.map(|(comparison, precision)| Seen {
        comparison,
        precision,
        ours: Vec::new(),
        peers: vec![Vec::new(); comparison.peers.len()],
    })
    .collect()
}

/// Measures each row once: ours, then each peer.
fn measure_round(ours: &Program, peers: &[Program], seen: &mut [Seen]) -> Result<()> {
    // A work that answers two questions is measured for both, so that ours and the peer's always stand side
    // by side.
    for row in seen {
        let Comparison { ours: our_work, theirs, iterations, warmup, .. } = *row.comparison;
        let precision = row.precision;
        let sample = ours.measure(Work { name: our_work, precision, iterations, warmup })?;
        tell(ours.name, our_work, precision, &sample);
        row.ours.push(sample);
        for (name, samples) in row.comparison.peers.iter().zip(&mut row.peers) {
            let Some(peer) = peers.iter().find(|peer| peer.name == *name) else { continue };
            let sample = peer.measure(Work { name: theirs, precision, iterations, warmup })?;
            tell(name, theirs, precision, &sample);
            samples.push(sample);
        }
    }
    Ok(())
}

fn tell(program: &str, work: &str, precision: &str, sample: &Sample) {
    eprintln!("  {program} {work} {precision}: {:.1}/s, {:.0} MB", sample.rate(), sample.peak_mb);
}

fn summary(seen: &Seen, limits: &[Limit]) -> Row {
    let limit =
        limits.iter().find(|limit| limit.precision == seen.precision).map_or(f64::NAN, |limit| limit.gflops);
    let measured = seen.comparison.peers.iter().zip(&seen.peers).filter(|(_, samples)| !samples.is_empty());
    let peers = measured.map(|(name, samples)| PeerResult::new(name, &seen.ours, samples, limit));
    Row::new([seen.comparison.title, seen.precision, seen.comparison.note], &seen.ours, limit, peers)
}

/// The emoji set's captions, one a line: the same file for ours and the peers.
fn write_captions(workspace: &Workspace, example: &Path, libtorch: &Libtorch) -> Result<PathBuf> {
    let failure = "bench_clip captions failed";
    let captions = stdout_of(workspace.program(example, libtorch).arg("captions"), failure)?;
    ensure!(!captions.is_empty(), "{failure}: it printed none");
    let path = example.with_file_name("bench_clip_captions.txt");
    fs::write(&path, captions).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The captions as the peers tokenise them, so that ours computes on the very same tokens.
fn write_tokens(python: &Path, script: &Path, captions: &Path) -> Result<PathBuf> {
    let failure = "the peers cannot tokenise";
    let mut command = peer_script(python, script);
    let tokens = stdout_of(command.args(["open_clip", "tokens", "--captions"]).arg(captions), failure)?;
    ensure!(!tokens.is_empty(), "{failure}: no tokens were printed");
    let path = captions.with_extension("ids");
    fs::write(&path, tokens).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
