//! `bench small`: training the demo's model, beside transformers' CLIPModel of the same sizes.

use std::fs;

use anyhow::{Context, Result};

use super::Compared;
use super::program::{Program, Sample, Work, median};
use super::report::{Limit, PeerResult, Report, Row};
use crate::markdown::write_section;
use crate::setup;
use crate::workspace::{Workspace, stdout_of};

/// Timed steps, and steps before them, which compile kernels for each text length and allocate memory.
const STEPS: (u32, u32) = (150, 30);
const PRODUCTS: (u32, u32) = (100, 20);

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Compared) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-clip", &["--example", "bench_small"])?;
    let lengths = example.with_file_name("bench_small_lengths.txt");
    let mut command = workspace.program(&example, &libtorch);
    command
        .current_dir(workspace.path(""))
        .args(["lengths", "--warmup", "0", "--iterations"])
        .arg((STEPS.0 + STEPS.1).to_string());
    fs::write(&lengths, stdout_of(&mut command, "bench_small lengths failed")?)
        .with_context(|| format!("cannot write {}", lengths.display()))?;
    let ours = Program::ours(example, libtorch.lib(), lengths.clone()).in_folder(workspace.path(""));
    let script = workspace.path("xtask/peers/bench_small.py");
    let peer =
        options.peer_python.as_deref().map(|python| Program::peer("transformers", python, script, lengths));

    let mut limits = Vec::new();
    let mut mine = Vec::new();
    let mut theirs = Vec::new();
    for _ in options.output.rounds() {
        limits.push(ours.measure(Work::new("limit", "f32", PRODUCTS))?);
        mine.push(ours.measure(Work::new("train", "f32", STEPS))?);
        if let Some(peer) = &peer {
            theirs.push(peer.measure(Work::new("train", "f32", STEPS))?);
        }
        let last = |samples: &[Sample]| samples.last().map_or(f64::NAN, |sample| sample.rate());
        let limit = limits.last().map_or(f64::NAN, |sample| sample.gflops());
        eprintln!("  limit {limit:.0} GFLOP/s, mm {:.0}/s, transformers {:.0}/s", last(&mine), last(&theirs));
    }
    let limit = median(&limits.iter().map(|sample| sample.gflops()).collect::<Vec<_>>());
    let peers = (!theirs.is_empty()).then(|| PeerResult::new("transformers", &mine, &theirs, limit));
    let row =
        Row::new(["training the demo's model", "f32", "the peer's data is in memory"], &mine, limit, peers);
    let report = Report::new(128, vec![Limit { precision: "f32", gflops: limit }], vec![row], None);
    write_section(&workspace.path("docs/benchmarks.md"), "bench small", &report.markdown())?;
    options.output.print(&report, &report.markdown())
}
