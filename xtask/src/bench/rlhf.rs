//! `bench rlhf`: roll-outs and updates of DDPO and DiffusionNFT beside plain PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::{Sample, measured, median, precisions};
use super::report::Limit;
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, stdout_of};

/// Options of `bench rlhf`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// The methods, with their titles.
const METHODS: [(&str, &str); 2] = [("ddpo", "DDPO"), ("nft", "DiffusionNFT")];
/// Timed roll-outs and those before them, which take seconds each.
const ROLLOUTS: [&str; 4] = ["--iterations", "5", "--warmup", "2"];
const LIMIT: [&str; 4] = ["--iterations", "10", "--warmup", "2"];

/// The output of a program.
#[derive(Deserialize, Clone)]
struct Run {
    /// Of a roll-out.
    images: f64,
    /// Seconds of each roll-out, and of each update.
    sampling: Vec<f64>,
    training: Vec<f64>,
    peak_mb: f64,
}

/// The outputs for one method in one precision, one a round.
struct Measurement {
    method: &'static str,
    title: &'static str,
    precision: &'static str,
    ours: Vec<Run>,
    theirs: Vec<Run>,
}

/// One program at one method: medians over the rounds.
#[derive(Serialize)]
struct Row {
    method: &'static str,
    precision: &'static str,
    program: &'static str,
    sampled_per_second: f64,
    trained_per_second: f64,
    peak_mb: f64,
    /// Of the peer's row: our rates of both phases over its, and our peak memory over its.
    ratios: Option<[f64; 3]>,
}

#[derive(Serialize)]
struct RlhfReport {
    date: String,
    processor: String,
    limits: Vec<Limit>,
    rows: Vec<Row>,
}

/// The programs.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    example: PathBuf,
    /// Measures the matrix limit.
    products: PathBuf,
    /// Of our model.
    folder: PathBuf,
    python: &'a Path,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-rlhf", &["--example", "bench_rlhf"])?;
    let products = workspace.build(&libtorch, "mm-diffusion", &["--example", "bench_diffusion"])?;
    let folder = example.with_file_name("bench_rlhf_model");
    let bench = Bench { workspace, libtorch, example, products, folder, python: &options.peer_python };
    stdout_of(&mut bench.ours("model"), "bench_rlhf cannot make a model")?;
    let precisions = precisions(&["f32", "bf16"], |precision| bench.limit(precision))?;
    let of = |precision| METHODS.map(|(method, title)| Measurement::new(method, title, precision));
    let mut all: Vec<Measurement> = precisions.iter().copied().flat_map(of).collect();
    let mut limits: Vec<(&str, Vec<f64>)> = precisions.iter().map(|&name| (name, Vec::new())).collect();
    for _ in options.output.rounds() {
        for (precision, limits) in &mut limits {
            limits.push(bench.limit(precision)?);
        }
        for measurement in &mut all {
            bench.measure(measurement)?;
        }
    }
    let limit = |(precision, limits): (&'static str, Vec<f64>)| Limit { precision, gflops: median(&limits) };
    let report = RlhfReport {
        date: today(),
        processor: processor::name(),
        limits: limits.into_iter().map(limit).collect(),
        rows: all.iter().flat_map(Measurement::rows).collect(),
    };
    let text = report.markdown();
    write_section(&workspace.path("docs/benchmarks.md"), "bench rlhf", &text)?;
    options.output.print(&report, &text)
}

impl Bench<'_> {
    /// Our program at `work`, in the workspace's folder, which holds the configurations.
    fn ours(&self, work: &str) -> Command {
        let mut command = self.workspace.program(&self.example, &self.libtorch);
        command.current_dir(self.workspace.path("")).arg(work).arg(&self.folder);
        command
    }

    /// The matrix limit in GFLOP/s.
    fn limit(&self, precision: &str) -> Result<f64> {
        let mut command = self.workspace.program(&self.products, &self.libtorch);
        command.args(["limit", "--precision", precision]).args(LIMIT);
        let sample: Sample = measured(&mut command, &format!("bench_diffusion (limit {precision})"))?;
        Ok(sample.gflops())
    }

    /// Measures one method once: our program and the peer.
    fn measure(&self, measurement: &mut Measurement) -> Result<()> {
        let Measurement { method, precision, ours, theirs, .. } = measurement;
        let mut peer = peer_script(self.python, &self.workspace.path("xtask/peers/rlhf.py"));
        peer.arg(*method);
        for (program, mut command, runs) in [("mm", self.ours(method), ours), ("PyTorch", peer, theirs)] {
            command.args(["--precision", precision]).args(ROLLOUTS);
            let run: Run = measured(&mut command, &format!("{program} ({method} {precision})"))?;
            eprintln!(
                "  {program}, {method} {precision}: {:.0} images/s sampled, {:.0} trained, {:.0} MB",
                run.sampled_per_second(),
                run.trained_per_second(),
                run.peak_mb
            );
            runs.push(run);
        }
        Ok(())
    }
}

impl Run {
    fn sampled_per_second(&self) -> f64 {
        self.images / median(&self.sampling)
    }

    fn trained_per_second(&self) -> f64 {
        self.images / median(&self.training)
    }
}

impl Measurement {
    fn new(method: &'static str, title: &'static str, precision: &'static str) -> Self {
        Self { method, title, precision, ours: Vec::new(), theirs: Vec::new() }
    }

    fn rows(&self) -> [Row; 2] {
        let row = |program, runs: &[Run], ratios| {
            let middle = |figure: fn(&Run) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
            Row {
                method: self.title,
                precision: self.precision,
                program,
                sampled_per_second: middle(Run::sampled_per_second),
                trained_per_second: middle(Run::trained_per_second),
                peak_mb: middle(|run| run.peak_mb),
                ratios,
            }
        };
        // Ratios are of the same round.
        let ratio = |figure: fn(&Run) -> f64| {
            let pairs = self.ours.iter().zip(&self.theirs);
            median(&pairs.map(|(ours, theirs)| figure(ours) / figure(theirs)).collect::<Vec<_>>())
        };
        let ratios =
            [ratio(Run::sampled_per_second), ratio(Run::trained_per_second), ratio(|run| run.peak_mb)];
        [row("mm", &self.ours, None), row("PyTorch", &self.theirs, Some(ratios))]
    }
}

impl RlhfReport {
    fn markdown(&self) -> String {
        let limit = |limit: &Limit| format!("{:.0} GFLOP/s in {}", limit.gflops, limit.precision);
        let limits: Vec<String> = self.limits.iter().map(limit).collect();
        let head = [
            "method",
            "precision",
            "program",
            "images/s sampled",
            "images/s trained",
            "peak MB",
            "mm samples at",
            "mm trains at",
            "mm's memory is",
        ];
        let mut lines = vec![head.map(String::from)];
        lines.extend(self.rows.iter().map(Row::line));
        let (date, processor, limits) = (&self.date, &self.processor, limits.join(", "));
        format!(
            "Measured on {date}, {processor}, medians.\nMatrix limit in the same run: {limits}.\n\n{}",
            table(&lines)
        )
    }
}

impl Row {
    fn line(&self) -> [String; 9] {
        let [sampling, training, memory] =
            self.ratios.map_or_else(Default::default, |ratios| ratios.map(|ratio| format!("{ratio:.2}x")));
        [
            self.method.to_owned(),
            self.precision.to_owned(),
            self.program.to_owned(),
            format!("{:.0}", self.sampled_per_second),
            format!("{:.0}", self.trained_per_second),
            format!("{:.0}", self.peak_mb),
            sampling,
            training,
            memory,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_row_has_our_rates_and_memory_as_ratios_within_a_round() {
        let run = |sampling: f64, training: f64, peak_mb| Run {
            images: 128.0,
            sampling: vec![sampling],
            training: vec![training],
            peak_mb,
        };
        let mut measurement = Measurement::new("nft", "DiffusionNFT", "f32");
        measurement.ours = vec![run(1.0, 2.0, 300.0), run(2.0, 4.0, 300.0), run(1.0, 2.0, 300.0)];
        measurement.theirs = vec![run(2.0, 3.0, 600.0), run(4.0, 6.0, 600.0), run(2.0, 3.0, 600.0)];
        let report = RlhfReport {
            date: String::new(),
            processor: String::new(),
            limits: vec![Limit { precision: "f32", gflops: 200.0 }],
            rows: measurement.rows().into(),
        };
        let text = report.markdown();
        let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
        let rows: Vec<String> = text.lines().map(cells).collect();
        for row in
            ["|DiffusionNFT|f32|mm|128|64|300||||", "|DiffusionNFT|f32|PyTorch|64|43|600|2.00x|1.50x|0.50x|"]
        {
            assert!(rows.iter().any(|line| line == row), "{row} is not in\n{text}");
        }
    }
}
