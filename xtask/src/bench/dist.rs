//! `bench dist`: two processes beside one, the all-reduce beside torch.distributed's, and what saves memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::median;
use super::training::{Training, as_processes};
use crate::libtorch::Libtorch;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, stdout_of};

/// Options of `bench dist`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with torch 2.13; without it only mm is measured
    #[arg(long, value_name = "PYTHON")]
    peer_python: Option<PathBuf>,
    /// Measure only the all-reduce, with its spread over the rounds; docs/distributed.md is not changed
    #[arg(long)]
    only_all_reduce: bool,
    #[command(flatten)]
    output: Output,
}

/// ViT-B/32 on emoji, with a vocabulary of 8,192 tokens: 131 M parameters.
const CONFIG: &str = r#"
[run]
task = "clip"
name = "bench"
[model]
embed_dim = 512
[model.image]
kind = "vit"
image_size = 224
patch_size = 32
hidden_size = 768
intermediate_size = 3072
num_hidden_layers = 12
num_attention_heads = 12
[model.text]
kind = "clip"
hidden_size = 512
intermediate_size = 2048
num_hidden_layers = 12
num_attention_heads = 8
max_position_embeddings = 77
[tokenizer]
vocab_size = 8192
[data]
train = { kind = "emoji", split = "train" }
workers = 1
[train]
steps = 6
batch_size = 16
lr = 1e-4
log_every = 1
checkpoint_every = 0
"#;

/// Steps before the timed ones.
const WARMUP: usize = 2;
const ALL_REDUCE_MB: &str = "100";

#[derive(Serialize)]
struct Report {
    date: String,
    processor: String,
    matrix_limit_gflops: f64,
    /// Samples per second of one process with two threads, and of two with one thread each.
    one_process: f64,
    two_processes: f64,
    times_one_process: f64,
    overlap: f64,
    all_reduce_gb_per_second: f64,
    torch_gb_per_second: Option<f64>,
    times_torch: Option<f64>,
    grad_cache_times: f64,
    checkpointing_memory: f64,
    checkpointing_times: f64,
    plain_8192: Loss,
    tiled_8192: Loss,
    tiled_32768: Loss,
    tiled_times_plain: f64,
}

/// The cost of a loss: seconds, memory above the embeddings and their gradients, and GFLOP/s.
#[derive(Serialize, Clone, Copy)]
struct Loss {
    seconds: f64,
    peak_mb: f64,
    gflops: f64,
}

/// The output of the example programs.
#[derive(Deserialize)]
struct Measured {
    seconds: Vec<f64>,
    #[serde(default)]
    peak_mb: f64,
    #[serde(default)]
    gflop_per_iteration: f64,
}

struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    mm: PathBuf,
    all_reduce: PathBuf,
    loss: PathBuf,
    clip: PathBuf,
    folder: PathBuf,
}

/// Runs the benchmark, prints it, and writes it into docs/distributed.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let build = |package: &str, kind: &str, name: &str| workspace.build(&libtorch, package, &[kind, name]);
    let mm = build("mm", "--bin", "mm")?;
    let bench = Bench {
        all_reduce: build("mm-dist", "--example", "bench_all_reduce")?,
        loss: build("mm-core", "--example", "bench_loss")?,
        clip: build("mm-clip", "--example", "bench_clip")?,
        folder: mm.with_file_name("bench_dist"),
        mm,
        workspace,
        libtorch,
    };
    fs::create_dir_all(&bench.folder).with_context(|| format!("cannot make {}", bench.folder.display()))?;
    let config = bench.folder.join("bench.toml");
    fs::write(&config, CONFIG).with_context(|| format!("cannot write {}", config.display()))?;
    if options.only_all_reduce {
        return bench.all_reduces(options);
    }
    let rounds = options.output.rounds().map(|_| bench.round(options.peer_python.as_deref()));
    let report = summary(&rounds.collect::<Result<Vec<_>>>()?);
    write_section(&workspace.path("docs/distributed.md"), "bench dist", &markdown(&report))?;
    options.output.print(&report, &markdown(&report))
}

impl Bench<'_> {
    fn round(&self, python: Option<&Path>) -> Result<Report> {
        let limit = self.example(&self.clip, &["limit"])?;
        let matrix_limit_gflops = limit.gflop_per_iteration / median(&limit.seconds);
        let (one, _) = self.train(1, 16, &[])?;
        let (two, overlap) = self.train(2, 16, &[])?;
        eprintln!("  one process {one:.2} samples/s, two {two:.2}, overlap {:.0} %", overlap * 100.0);

        let script = self.workspace.path("xtask/peers/bench_dist.py");
        let ours = self.all_reduce_rate(&|| self.workspace.program(&self.all_reduce, &self.libtorch))?;
        let theirs =
            python.map(|python| self.all_reduce_rate(&|| peer_script(python, &script))).transpose()?;
        eprintln!("  all-reduce {ours:.2} GB/s, torch {:.2}", theirs.unwrap_or_default());

        let (whole, _) = self.train(1, 64, &["train.steps=4"])?;
        let (chunked, _) = self.train(1, 64, &["train.steps=4", "loss.grad_cache_chunk=8"])?;
        let kept = self.example(&self.loss, &["checkpointing", "off"])?;
        let recomputed = self.example(&self.loss, &["checkpointing", "on"])?;
        let plain_8192 = self.loss("plain", "8192")?;
        let tiled_8192 = self.loss("tiled", "8192")?;
        let tiled_32768 = self.loss("tiled", "32768")?;
        eprintln!("  plain loss {:.2} s, tiled {:.2} s", plain_8192.seconds, tiled_8192.seconds);
        Ok(Report {
            date: today(),
            processor: processor::name(),
            matrix_limit_gflops,
            one_process: one,
            two_processes: two,
            times_one_process: two / one,
            overlap,
            all_reduce_gb_per_second: ours,
            torch_gb_per_second: theirs,
            times_torch: theirs.map(|theirs| ours / theirs),
            grad_cache_times: whole / chunked,
            checkpointing_memory: recomputed.peak_mb / kept.peak_mb,
            checkpointing_times: median(&recomputed.seconds) / median(&kept.seconds),
            plain_8192,
            tiled_8192,
            tiled_32768,
            tiled_times_plain: tiled_8192.seconds / plain_8192.seconds,
        })
    }

    /// Trains in `world` processes on two cores. Returns samples per second, and the share of the gradient
    /// exchange that overlaps with the backward pass.
    fn train(&self, world: u32, batch: u32, options: &[&str]) -> Result<(f64, f64)> {
        let training = Training {
            workspace: self.workspace,
            libtorch: &self.libtorch,
            mm: &self.mm,
            folder: self.folder.clone(),
        };
        let batch_size = format!("train.batch_size={batch}");
        let sets: Vec<&str> = [batch_size.as_str()].into_iter().chain(options.iter().copied()).collect();
        let trained = training.run(world, &self.folder.join("bench.toml"), "bench", &sets, WARMUP)?;
        Ok((f64::from(batch) / trained.seconds, trained.overlap))
    }

    /// Prints median, minimum and maximum of the all-reduce's rates, and of the ratios within a round.
    fn all_reduces(&self, options: &Options) -> Result<()> {
        let script = self.workspace.path("xtask/peers/bench_dist.py");
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.output.rounds {
            ours.push(self.all_reduce_rate(&|| self.workspace.program(&self.all_reduce, &self.libtorch))?);
            if let Some(python) = &options.peer_python {
                theirs.push(self.all_reduce_rate(&|| peer_script(python, &script))?);
                ratios.push(ours[ours.len() - 1] / theirs[theirs.len() - 1]);
            }
            let of = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
            eprintln!("  round {}: mm {:.2} GB/s, torch {:.2}", round + 1, of(&ours), of(&theirs));
        }
        for (name, values) in [("mm, GB/s", &ours), ("torch.distributed, GB/s", &theirs), ("ratio", &ratios)]
        {
            if !values.is_empty() {
                let (least, most) =
                    values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
                println!(
                    "{name}: {:.2} (from {least:.2} to {most:.2} over {} rounds)",
                    median(values),
                    values.len()
                );
            }
        }
        Ok(())
    }

    /// The rate of an all-reduce of two processes, in GB/s.
    fn all_reduce_rate(&self, program: &dyn Fn() -> Command) -> Result<f64> {
        let printed = as_processes(2, &|| {
            let mut program = program();
            program.arg(ALL_REDUCE_MB);
            program
        })?;
        let measured: Measured = parse(&printed)?;
        Ok(ALL_REDUCE_MB.parse::<f64>()? / 1e3 / median(&measured.seconds))
    }

    fn loss(&self, work: &str, batch: &str) -> Result<Loss> {
        let measured = self.example(&self.loss, &[work, batch, "512"])?;
        let seconds = median(&measured.seconds);
        // Logits and two gradients; tiles compute the logits twice.
        let products = if work == "plain" { 3.0 } else { 4.0 };
        let gflops = products * 2.0 * batch.parse::<f64>()?.powi(2) * 512.0 / 1e9 / seconds;
        Ok(Loss { seconds, peak_mb: measured.peak_mb, gflops })
    }

    fn example(&self, program: &Path, arguments: &[&str]) -> Result<Measured> {
        let mut command = self.workspace.program(program, &self.libtorch);
        parse(&stdout_of(command.args(arguments), &format!("{} failed", program.display()))?)
    }
}

fn parse(printed: &str) -> Result<Measured> {
    let line = printed.lines().last().context("nothing on its standard output")?;
    serde_json::from_str(line).with_context(|| format!("no measurement: {line}"))
}

/// The medians over the rounds, of the ratios too.
fn summary(rounds: &[Report]) -> Report {
    let of = |value: &dyn Fn(&Report) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let of_peer = |value: &dyn Fn(&Report) -> Option<f64>| {
        let values: Option<Vec<f64>> = rounds.iter().map(value).collect();
        values.map(|values| median(&values))
    };
    let of_loss = |loss: &dyn Fn(&Report) -> Loss| Loss {
        seconds: of(&|report| loss(report).seconds),
        peak_mb: of(&|report| loss(report).peak_mb),
        gflops: of(&|report| loss(report).gflops),
    };
    Report {
        date: today(),
        processor: processor::name(),
        matrix_limit_gflops: of(&|report| report.matrix_limit_gflops),
        one_process: of(&|report| report.one_process),
        two_processes: of(&|report| report.two_processes),
        times_one_process: of(&|report| report.times_one_process),
        overlap: of(&|report| report.overlap),
        all_reduce_gb_per_second: of(&|report| report.all_reduce_gb_per_second),
        torch_gb_per_second: of_peer(&|report| report.torch_gb_per_second),
        times_torch: of_peer(&|report| report.times_torch),
        grad_cache_times: of(&|report| report.grad_cache_times),
        checkpointing_memory: of(&|report| report.checkpointing_memory),
        checkpointing_times: of(&|report| report.checkpointing_times),
        plain_8192: of_loss(&|report| report.plain_8192),
        tiled_8192: of_loss(&|report| report.tiled_8192),
        tiled_32768: of_loss(&|report| report.tiled_32768),
        tiled_times_plain: of(&|report| report.tiled_times_plain),
    }
}

fn markdown(report: &Report) -> String {
    let line = |what: &str, value: String, beside: String| [what.to_owned(), value, beside];
    let loss = |loss: Loss| {
        let share = 100.0 * loss.gflops / report.matrix_limit_gflops;
        format!("{:.2} s, {:.0} MB, {share:.0} % of the limit", loss.seconds, loss.peak_mb)
    };
    let peer = report.torch_gb_per_second.zip(report.times_torch);
    let lines = [
        ["work", "measured", "beside"].map(String::from),
        line(
            "ViT-B/32, batch 16: 2 processes with 1 thread each",
            format!("{:.2} samples/s", report.two_processes),
            format!(
                "1 process with 2 threads: {:.2} samples/s; {:.2}x of it",
                report.one_process, report.times_one_process
            ),
        ),
        line(
            "exchange of gradients beside the backward pass",
            format!("{:.0} %", 100.0 * report.overlap),
            "of the time from sending the first bucket to receiving the last".to_owned(),
        ),
        line(
            "all-reduce of 100 MB, 2 processes",
            format!("{:.2} GB/s", report.all_reduce_gb_per_second),
            peer.map_or_else(
                || "not measured".to_owned(),
                |(rate, times)| format!("torch.distributed: {rate:.2} GB/s; {times:.2}x of it"),
            ),
        ),
        line(
            "GradCache, batch 64 in 8 chunks",
            format!("{:.2}x the time", report.grad_cache_times),
            "of the whole batch".to_owned(),
        ),
        line(
            "gradient checkpointing, 12 layers",
            format!("{:.2}x the memory of activations", report.checkpointing_memory),
            format!("{:.2}x the time", report.checkpointing_times),
        ),
        line("InfoNCE, B = 8,192, plain", loss(report.plain_8192), String::new()),
        line(
            "InfoNCE, B = 8,192, tiled",
            loss(report.tiled_8192),
            format!("{:.2}x the time of the plain loss", report.tiled_times_plain),
        ),
        line(
            "InfoNCE, B = 32,768, tiled",
            loss(report.tiled_32768),
            "the plain loss would hold 4.3 GB of logits several times".to_owned(),
        ),
    ];
    format!(
        "Measured on {}, {}, medians; width 512, f32. Memory of losses is above the embeddings\n\
         and their gradients. Matrix limit in the same run: {:.0} GFLOP/s.\n\n{}",
        report.date,
        report.processor,
        report.matrix_limit_gflops,
        table(&lines)
    )
}
