//! `bench data`: training batches from shards of JPEGs, beside open_clip's transforms in a webdataset
//! pipeline.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::median;
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command, stdout_of};

/// Options of `bench data`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer, which also makes the photographs
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    /// JPEGs of about 500x375 to load
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(200..))]
    images: u32,
    #[command(flatten)]
    output: Output,
}

/// Processes or threads that decode, for both programs.
const WORKERS: &str = "2";

/// The number of shards in the timing of a resume.
const SHARDS: &str = "1000";

/// The output of a program.
#[derive(Deserialize)]
struct Measured {
    samples: f64,
    seconds: f64,
    /// Peak memory of its processes, where it is measured.
    #[serde(default)]
    peak_mb: f64,
    /// Bytes written, if any.
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

/// The programs and folders of the benchmark.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    example: PathBuf,
    mm: PathBuf,
    python: &'a Path,
    /// Shards of photographs.
    shards: PathBuf,
    /// [`SHARDS`] small shards.
    many: PathBuf,
}

/// The measurements of one round.
struct Round {
    theirs: Measured,
    ours: Measured,
    streamed: Measured,
    shapes_per_second: f64,
    resume_seconds: f64,
    packed_mb_per_second: f64,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-data", &["--example", "bench_data"])?;
    let bench = Bench {
        mm: workspace.build(&libtorch, "mm", &["--bin", "mm"])?,
        shards: example.with_file_name("bench_data_shards"),
        many: example.with_file_name("bench_data_many"),
        python: &options.peer_python,
        workspace,
        libtorch,
        example,
    };
    bench.make_photographs(options.images)?;
    let _ = fs::remove_dir_all(&bench.many);
    bench.ours(&["shards".as_ref(), &bench.many, SHARDS.as_ref()])?;
    let first_index = bench.ours(&["restore".as_ref(), &bench.many])?;
    let rounds: Vec<Round> = options.output.rounds().map(|_| bench.round()).collect::<Result<_>>()?;
    let report = summary(&rounds, options.images, first_index.seconds);
    if options.images >= 4000 {
        write_section(&workspace.path("docs/benchmarks.md"), "bench data", &markdown(&report))?;
    }
    options.output.print(&report, &markdown(&report))
}

impl Bench<'_> {
    fn peer(&self, arguments: &[&Path]) -> Command {
        let mut command = peer_script(self.python, &self.workspace.path("xtask/peers/bench_data.py"));
        command.args(arguments);
        command
    }

    fn ours(&self, arguments: &[&Path]) -> Result<Measured> {
        measured(Command::new(&self.example).args(arguments))
    }

    /// Writes the shards of photographs, if an earlier run has not.
    fn make_photographs(&self, images: u32) -> Result<()> {
        let made = self.shards.join(format!("made-{images}"));
        if made.is_file() {
            return Ok(());
        }
        let _ = fs::remove_dir_all(&self.shards);
        let photos = self.workspace.path("data/goldens/images/photos");
        let count = images.to_string();
        run_command(&mut self.peer(&["make".as_ref(), &photos, &self.shards, count.as_ref()]))?;
        fs::write(&made, "").with_context(|| format!("cannot write {}", made.display()))
    }

    fn round(&self) -> Result<Round> {
        let theirs = measured(&mut self.peer(&["load".as_ref(), &self.shards, WORKERS.as_ref()]))?;
        eprintln!("  open_clip: {:.0} samples/s, {:.0} MB", theirs.rate(), theirs.peak_mb);
        let ours = self.ours(&["load".as_ref(), &self.shards, WORKERS.as_ref()])?;
        eprintln!("  mm: {:.0} samples/s, {:.0} MB", ours.rate(), ours.peak_mb);
        Ok(Round {
            theirs,
            ours,
            streamed: self.ours(&["stream".as_ref(), &self.shards, WORKERS.as_ref()])?,
            shapes_per_second: self.ours(&["shapes".as_ref(), "3".as_ref()])?.rate(),
            resume_seconds: self.ours(&["restore".as_ref(), &self.many])?.seconds,
            packed_mb_per_second: self.pack()?,
        })
    }

    /// Packs the photographs as shards; returns MB per second.
    fn pack(&self) -> Result<f64> {
        let packed = self.example.with_file_name("bench_data_packed");
        let _ = fs::remove_dir_all(&packed);
        let data = format!("kind = \"webdataset\", shards = \"{}/*.tar\"", self.shards.display());
        let mut pack = self.workspace.program(&self.mm, &self.libtorch);
        pack.args(["data", "shards", "--json", "--data", &data, "--out"]).arg(&packed);
        let pack = measured(&mut pack)?;
        Ok(pack.bytes / 1e6 / pack.seconds)
    }
}

/// The medians over the rounds, of the ratios too.
fn summary(rounds: &[Round], images: u32, first_index_seconds: f64) -> Report {
    let of = |value: &dyn Fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    Report {
        date: today(),
        images,
        samples_per_second: of(&|round| round.ours.rate()),
        open_clip_samples_per_second: of(&|round| round.theirs.rate()),
        times_open_clip: of(&|round| round.ours.rate() / round.theirs.rate()),
        peak_mb: of(&|round| round.ours.peak_mb),
        open_clip_peak_mb: of(&|round| round.theirs.peak_mb),
        share_of_open_clips_memory: of(&|round| round.ours.peak_mb / round.theirs.peak_mb),
        streamed_samples_per_second: of(&|round| round.streamed.rate()),
        streamed_peak_mb: of(&|round| round.streamed.peak_mb),
        shapes_per_second: of(&|round| round.shapes_per_second),
        first_index_seconds,
        resume_seconds: of(&|round| round.resume_seconds),
        packed_mb_per_second: of(&|round| round.packed_mb_per_second),
    }
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
        "Measured on {}, {}, {} JPEGs of about 500x375 in shards of 500, {WORKERS} workers, batch 64,\n\
         medians.\n\n{}\n\
         `shapes`: {:.0} scenes/s with all texts and pixels at 64 px on one core. Opening {SHARDS} shards\n\
         and resuming in the middle of an epoch: {:.2} s; {:.2} s the first time, with indexing.\n\
         `mm data shards`: {:.0} MB/s.\n",
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
