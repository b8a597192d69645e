//! `bench data`: shards of JPEGs to training batches, beside open_clip's transforms in a webdataset pipeline.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::median;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command, stdout_of};

/// Options of `bench data`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python that has the peer, which also makes the photographs
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    /// JPEGs of about 500x375 to load
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(200..))]
    images: u32,
    #[command(flatten)]
    output: Output,
}

/// Processes or threads that decode, on both sides.
const WORKERS: &str = "2";

/// Shards of the set on which a resume is timed.
const SHARDS: &str = "1000";

/// What a program prints.
#[derive(Deserialize)]
struct Measured {
    samples: f64,
    seconds: f64,
    /// The most memory that its processes held, where that is measured.
    #[serde(default)]
    peak_mb: f64,
    /// Bytes written, where it writes.
    #[serde(default)]
    bytes: f64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.samples / self.seconds
    }
}

#[derive(Serialize)]
struct Report {
    date: String,
    images: u32,
    samples_per_second: f64,
    open_clip_samples_per_second: f64,
    times_open_clip: f64,
    peak_mb: f64,
    open_clip_peak_mb: f64,
    share_of_open_clips_memory: f64,
    streamed_samples_per_second: f64,
    streamed_peak_mb: f64,
    shapes_per_second: f64,
    first_index_seconds: f64,
    resume_seconds: f64,
    packed_mb_per_second: f64,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-data", &["--example", "bench_data"])?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let script = workspace.path("xtask/peers/bench_data.py");
    let (shards, many) =
        (example.with_file_name("bench_data_shards"), example.with_file_name("bench_data_many"));
    let packed = example.with_file_name("bench_data_packed");
    let peer = |arguments: &[&Path]| {
        let mut command = peer_script(&options.peer_python, &script);
        command.args(arguments);
        command
    };
    let made = shards.join(format!("made-{}", options.images));
    if !made.is_file() {
        let _ = fs::remove_dir_all(&shards);
        let (photos, count) = (workspace.path("data/goldens/images/photos"), options.images.to_string());
        run_command(&mut peer(&[Path::new("make"), &photos, &shards, Path::new(&count)]))?;
        fs::write(&made, "").with_context(|| format!("cannot write {}", made.display()))?;
    }
    let ours = |arguments: &[&Path]| {
        let mut command = Command::new(&example);
        measured(command.args(arguments))
    };
    let _ = fs::remove_dir_all(&many);
    ours(&[Path::new("shards"), &many, Path::new(SHARDS)])?;
    let first_index = ours(&[Path::new("restore"), &many])?;

    let (mut rates, mut peers, mut ratios, mut memory, mut shares, mut streamed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut shapes, mut resumes, mut packing) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.output.rounds {
        eprintln!("round {} of {}", round + 1, options.output.rounds);
        let theirs = measured(&mut peer(&[Path::new("load"), &shards, Path::new(WORKERS)]))?;
        eprintln!("  open_clip: {:.0} samples/s, {:.0} MB", theirs.rate(), theirs.peak_mb);
        let mine = ours(&[Path::new("load"), &shards, Path::new(WORKERS)])?;
        eprintln!("  mm: {:.0} samples/s, {:.0} MB", mine.rate(), mine.peak_mb);
        let stream = ours(&[Path::new("stream"), &shards, Path::new(WORKERS)])?;
        shapes.push(ours(&[Path::new("shapes"), Path::new("3")])?.rate());
        resumes.push(ours(&[Path::new("restore"), &many])?.seconds);
        let _ = fs::remove_dir_all(&packed);
        let mut pack = workspace.program(&mm, &libtorch);
        let data = format!("kind = \"webdataset\", shards = \"{}/*.tar\"", shards.display());
        pack.args(["data", "shards", "--json", "--data", &data, "--out"]).arg(&packed);
        let pack = measured(&mut pack)?;
        packing.push(pack.bytes / 1e6 / pack.seconds);
        rates.push(mine.rate());
        ratios.push(mine.rate() / theirs.rate());
        shares.push(mine.peak_mb / theirs.peak_mb);
        memory.push(mine.peak_mb);
        peers.push((theirs.rate(), theirs.peak_mb));
        streamed.push((stream.rate(), stream.peak_mb));
    }
    let [peer_rates, peer_memory] = unzip(&peers);
    let [streamed_rates, streamed_memory] = unzip(&streamed);
    let report = Report {
        date: today(),
        images: options.images,
        samples_per_second: median(&rates),
        open_clip_samples_per_second: median(&peer_rates),
        times_open_clip: median(&ratios),
        peak_mb: median(&memory),
        open_clip_peak_mb: median(&peer_memory),
        share_of_open_clips_memory: median(&shares),
        streamed_samples_per_second: median(&streamed_rates),
        streamed_peak_mb: median(&streamed_memory),
        shapes_per_second: median(&shapes),
        first_index_seconds: first_index.seconds,
        resume_seconds: median(&resumes),
        packed_mb_per_second: median(&packing),
    };
    if options.images >= 4000 {
        write_section(&workspace.path("docs/benchmarks.md"), "bench data", &markdown(&report))?;
    }
    match options.output.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!("{}", markdown(&report)),
    }
    Ok(())
}

fn unzip(pairs: &[(f64, f64)]) -> [Vec<f64>; 2] {
    let (first, second) = pairs.iter().copied().unzip();
    [first, second]
}

fn measured(command: &mut Command) -> Result<Measured> {
    let program = command.get_program().display().to_string();
    let printed = stdout_of(command, &format!("{program} failed"))?;
    let line = printed.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{program} printed no measurement"))
}

fn markdown(report: &Report) -> String {
    let line = |program: &str, how: &str, rate: f64, peak: f64, ratio: String| {
        [program.to_owned(), how.to_owned(), format!("{rate:.0}"), format!("{peak:.0}"), ratio]
    };
    let ratio =
        format!("{:.2}x, {:.2}x of the memory", report.times_open_clip, report.share_of_open_clips_memory);
    let lines = [
        ["program", "shards", "samples/s", "peak MB", "mm is"].map(String::from),
        line(
            "open_clip",
            "streamed",
            report.open_clip_samples_per_second,
            report.open_clip_peak_mb,
            String::new(),
        ),
        line("mm", "by number", report.samples_per_second, report.peak_mb, ratio),
        line("mm", "streamed", report.streamed_samples_per_second, report.streamed_peak_mb, String::new()),
    ];
    format!(
        "Measured on {}, {}, {} JPEGs of about 500x375 in shards of 500, {WORKERS} workers, batch 64, medians.\n\n{}\n\
         `shapes`: {:.0} scenes/s with all texts and pixels at 64 px on one core. Opening {SHARDS} shards and going to the middle of an epoch: {:.2} s; {:.2} s \
         the first time, when they are indexed. `mm data shards`: {:.0} MB/s.\n",
        report.date,
        processor::name(),
        report.images,
        table(&lines),
        report.shapes_per_second,
        report.resume_seconds,
        report.first_index_seconds,
        report.packed_mb_per_second,
    )
}
