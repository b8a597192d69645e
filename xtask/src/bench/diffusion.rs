//! `bench diffusion`: Stable Diffusion 1.5's U-Net and autoencoder with random weights beside diffusers, and
//! training the demo's model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::{Sample, measured, median, precisions};
use super::report::Limit;
use super::training::Training;
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script};

/// Options of `bench diffusion`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    #[command(flatten)]
    output: Output,
}

const PEER: &str = "diffusers";
/// Timed iterations and those before them, which take seconds each.
const ITERATIONS: [&str; 4] = ["--iterations", "2", "--warmup", "1"];
const LIMIT: [&str; 4] = ["--iterations", "10", "--warmup", "2"];
/// The works, with their titles.
const WORKS: [(&str, &str); 2] =
    [("step", "guided step, 64 x 64 latents"), ("decode", "decoding to 512 x 512")];

/// The demo's run, its processes, and the peer's steps that are timed and before them.
const DEMO: &str = "configs/diffusion/shapes-pixel.toml";
const DEMO_NAME: &str = "shapes-pixel";
const PROCESSES: u32 = 2;
const TRAINING: [&str; 4] = ["--iterations", "100", "--warmup", "30"];
/// Lines of the run's metrics before the timed ones, and all its steps.
const WARMUP: usize = 3;
const STEPS: i64 = 130;

/// The output of a program.
#[derive(Deserialize, Clone)]
struct Run {
    #[serde(flatten)]
    sample: Sample,
    /// Memory held more after the last timed iteration than after the first, in MB.
    growth_mb: f64,
}

/// The outputs for one work, one a round.
struct Measurement {
    work: &'static str,
    title: &'static str,
    ours: Vec<Run>,
    theirs: Vec<Run>,
}

/// All measurements in one precision.
struct Measurements {
    precision: &'static str,
    limits: Vec<f64>,
    works: Vec<Measurement>,
    /// Samples per second of ours and of the peer, one pair a round.
    training: Vec<[f64; 2]>,
}

/// One program at one work: medians over the rounds.
#[derive(Serialize)]
struct Row {
    work: &'static str,
    precision: &'static str,
    program: &'static str,
    seconds: f64,
    gflops: f64,
    share_of_limit: f64,
    peak_mb: f64,
    growth_mb: f64,
    /// Of the peer's row: its time over ours, and our peak memory over its.
    ratios: Option<[f64; 2]>,
}

/// Training the demo's model in one precision: medians over the rounds.
#[derive(Serialize)]
struct TrainingRow {
    precision: &'static str,
    samples_per_second: f64,
    peer_samples_per_second: f64,
    times_peer: f64,
}

#[derive(Serialize)]
struct DiffusionReport {
    date: String,
    processor: String,
    limits: Vec<Limit>,
    rows: Vec<Row>,
    training: Vec<TrainingRow>,
}

/// The programs.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    example: PathBuf,
    mm: PathBuf,
    python: &'a Path,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-diffusion", &["--example", "bench_diffusion"])?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let bench = Bench { workspace, libtorch, example, mm, python: &options.peer_python };
    let precisions = precisions(&["f32", "bf16"], |precision| bench.limit(precision))?;
    let mut all: Vec<_> = precisions.iter().copied().map(Measurements::new).collect();
    for _ in options.output.rounds() {
        for measurements in &mut all {
            bench.measure(measurements)?;
        }
    }
    let report = DiffusionReport::new(&all);
    let text = report.markdown();
    write_section(&workspace.path("docs/benchmarks.md"), "bench diffusion", &text)?;
    options.output.print(&report, &text)
}

impl Bench<'_> {
    fn ours(&self, work: &str, precision: &str, iterations: [&str; 4]) -> Result<Run> {
        let mut command = self.workspace.program(&self.example, &self.libtorch);
        command.args([work, "--precision", precision]).args(iterations);
        print_run(&mut command, "mm", work, precision)
    }

    fn theirs(&self, work: &str, precision: &str) -> Result<Run> {
        print_run(&mut self.peer(work, precision, ITERATIONS), PEER, work, precision)
    }

    fn peer(&self, work: &str, precision: &str, iterations: [&str; 4]) -> Command {
        let mut command = peer_script(self.python, &self.workspace.path("xtask/peers/diffusion.py"));
        command.args([work, "--precision", precision]).args(iterations);
        command
    }

    /// The matrix limit in GFLOP/s.
    fn limit(&self, precision: &str) -> Result<f64> {
        Ok(self.ours("limit", precision, LIMIT)?.sample.gflops())
    }

    /// Measures one precision once: the limit, then at each work our program and the peer.
    fn measure(&self, measurements: &mut Measurements) -> Result<()> {
        let precision = measurements.precision;
        measurements.limits.push(self.limit(precision)?);
        for measurement in &mut measurements.works {
            measurement.ours.push(self.ours(measurement.work, precision, ITERATIONS)?);
            measurement.theirs.push(self.theirs(measurement.work, precision)?);
        }
        let ours = self.train(precision)?;
        let peer = format!("{PEER} (train {precision})");
        let theirs: Sample = measured(&mut self.peer("train", precision, TRAINING), &peer)?;
        let rates = [ours, theirs.rate()];
        eprintln!("  training {precision}: mm {:.0} samples/s, PyTorch {:.0}", rates[0], rates[1]);
        measurements.training.push(rates);
        Ok(())
    }

    /// Samples per second of `mm train` with the demo's configuration, its data drawn meanwhile. Nothing is
    /// evaluated, which would need the demo's judge.
    fn train(&self, precision: &str) -> Result<f64> {
        let folder = self.mm.with_file_name("bench_diffusion");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let text = fs::read_to_string(self.workspace.path(DEMO)).with_context(|| format!("no {DEMO}"))?;
        let mut config: toml::Table = toml::from_str(&text).context(DEMO)?;
        let train = config.get_mut("train").and_then(toml::Value::as_table_mut);
        let train = train.with_context(|| format!("{DEMO} has no [train]"))?;
        train.remove("minutes");
        for (key, value) in [("steps", STEPS), ("log_every", 10), ("checkpoint_every", 0)] {
            train.insert(key.to_owned(), toml::Value::Integer(value));
        }
        train.insert("precision".to_owned(), precision.into());
        let batch = train.get("batch_size").and_then(toml::Value::as_integer);
        let batch = batch.with_context(|| format!("{DEMO} has no train.batch_size"))?;
        config.remove("sample");
        if let Some(data) = config.get_mut("data").and_then(toml::Value::as_table_mut) {
            data.remove("eval");
        }
        let file = folder.join("config.toml");
        fs::write(&file, config.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        let training = Training { workspace: self.workspace, libtorch: &self.libtorch, mm: &self.mm, folder };
        let trained = training.run(PROCESSES, &file, DEMO_NAME, &[], WARMUP)?;
        Ok(batch as f64 / trained.seconds)
    }
}

fn print_run(command: &mut Command, program: &str, work: &str, precision: &str) -> Result<Run> {
    let run: Run = measured(command, &format!("{program} ({work} {precision})"))?;
    eprintln!(
        "  {program}, {work} {precision}: {:.2} s, {:.0} GFLOP/s, {:.0} MB",
        run.seconds(),
        run.sample.gflops(),
        run.sample.peak_mb
    );
    Ok(run)
}

impl Run {
    fn seconds(&self) -> f64 {
        1.0 / self.sample.rate()
    }
}

/// The median of a figure over the rounds.
fn middle(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    median(&runs.iter().map(figure).collect::<Vec<_>>())
}

impl Measurements {
    fn new(precision: &'static str) -> Self {
        let work = |(work, title)| Measurement { work, title, ours: Vec::new(), theirs: Vec::new() };
        let works = WORKS.into_iter().map(work).collect();
        Self { precision, limits: Vec::new(), works, training: Vec::new() }
    }

    fn training_row(&self) -> TrainingRow {
        let of = |rate: fn(&[f64; 2]) -> f64| median(&self.training.iter().map(rate).collect::<Vec<_>>());
        TrainingRow {
            precision: self.precision,
            samples_per_second: of(|[ours, _]| *ours),
            peer_samples_per_second: of(|[_, theirs]| *theirs),
            times_peer: of(|[ours, theirs]| ours / theirs),
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let limit = median(&self.limits);
        let row = move |measurement: &Measurement, program, runs: &[Run], ratios| Row {
            work: measurement.title,
            precision: self.precision,
            program,
            seconds: middle(runs, Run::seconds),
            gflops: middle(runs, |run| run.sample.gflops()),
            share_of_limit: middle(runs, |run| run.sample.gflops()) / limit,
            peak_mb: middle(runs, |run| run.sample.peak_mb),
            growth_mb: middle(runs, |run| run.growth_mb),
            ratios,
        };
        self.works.iter().flat_map(move |measurement| {
            let Measurement { ours, theirs, .. } = measurement;
            // Ratios are of the same round.
            let ratio = |of: fn(&Run, &Run) -> f64| {
                median(&ours.iter().zip(theirs).map(|(ours, theirs)| of(ours, theirs)).collect::<Vec<_>>())
            };
            let ratios = [
                ratio(|ours, theirs| theirs.seconds() / ours.seconds()),
                ratio(|ours, theirs| ours.sample.peak_mb / theirs.sample.peak_mb),
            ];
            [row(measurement, "mm", ours, None), row(measurement, PEER, theirs, Some(ratios))]
        })
    }
}

impl DiffusionReport {
    fn new(all: &[Measurements]) -> Self {
        let limit = |of: &Measurements| Limit { precision: of.precision, gflops: median(&of.limits) };
        Self {
            date: today(),
            processor: processor::name(),
            limits: all.iter().map(limit).collect(),
            rows: all.iter().flat_map(Measurements::rows).collect(),
            training: all.iter().map(Measurements::training_row).collect(),
        }
    }

    fn markdown(&self) -> String {
        let limit = |limit: &Limit| format!("{:.0} GFLOP/s in {}", limit.gflops, limit.precision);
        let limits: Vec<String> = self.limits.iter().map(limit).collect();
        let head = [
            "work",
            "precision",
            "program",
            "seconds",
            "GFLOP/s",
            "of the limit",
            "peak MB",
            "growth MB",
            "mm is",
            "mm's memory is",
        ];
        let mut lines = vec![head.map(String::from)];
        lines.extend(self.rows.iter().map(Row::line));
        let (date, processor, limits) = (&self.date, &self.processor, limits.join(", "));
        let head = ["training the demo's model", "mm, samples/s", "PyTorch, samples/s", "mm is"];
        let mut training = vec![head.map(String::from)];
        training.extend(self.training.iter().map(TrainingRow::line));
        format!(
            "Measured on {date}, {processor}, medians.\nMatrix limit in the same run: {limits}.\n\n{}\n{}",
            table(&lines),
            table(&training)
        )
    }
}

impl Row {
    fn line(&self) -> [String; 10] {
        let [speed, memory] =
            self.ratios.map_or_else(Default::default, |ratios| ratios.map(|ratio| format!("{ratio:.2}x")));
        [
            self.work.to_owned(),
            self.precision.to_owned(),
            self.program.to_owned(),
            format!("{:.2}", self.seconds),
            format!("{:.0}", self.gflops),
            format!("{:.0}%", self.share_of_limit * 100.0),
            format!("{:.0}", self.peak_mb),
            format!("{:.0}", self.growth_mb),
            speed,
            memory,
        ]
    }
}

impl TrainingRow {
    fn line(&self) -> [String; 4] {
        [
            self.precision.to_owned(),
            format!("{:.0}", self.samples_per_second),
            format!("{:.0}", self.peer_samples_per_second),
            format!("{:.2}x", self.times_peer),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: f64, peak_mb: f64) -> Run {
        let printed = serde_json::json!({
            "items_per_iteration": 1,
            "seconds": [seconds],
            "gflop_per_iteration": 1600,
            "peak_mb": peak_mb,
            "growth_mb": 0.2,
        });
        serde_json::from_value(printed).unwrap()
    }

    #[test]
    fn a_peers_row_has_its_time_and_our_memory_as_ratios() {
        let mut f32 = Measurements::new("f32");
        f32.limits = vec![200.0];
        for measurement in &mut f32.works {
            measurement.ours = vec![run(8.0, 3500.0), run(16.0, 3500.0), run(8.0, 3500.0)];
            measurement.theirs = vec![run(12.0, 7000.0), run(24.0, 7000.0), run(10.0, 7000.0)];
        }
        f32.training = vec![[300.0, 200.0], [330.0, 220.0]];
        let text = DiffusionReport::new(&[f32]).markdown();
        let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
        let rows: Vec<String> = text.lines().map(cells).collect();
        for row in [
            "|guided step, 64 x 64 latents|f32|mm|8.00|200|100%|3500|0|||",
            "|decoding to 512 x 512|f32|diffusers|12.00|133|67%|7000|0|1.50x|0.50x|",
            "|f32|315|210|1.50x|",
        ] {
            assert!(rows.iter().any(|line| line == row), "{row} is not in\n{text}");
        }
    }
}
