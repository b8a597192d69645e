//! `bench caption`: BLIP-base with random weights beside transformers: captions by beam search, and training.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::{Program, Sample, measured, median};
use super::report::{Limit, PeerResult, Report, Row};
use crate::libtorch::Libtorch;
use crate::markdown::{table, write_section};
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command};

/// Options of `bench caption`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer, which also makes the model
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Images of a batch, in captioning and in training.
const IMAGES: u32 = 8;
const PEER: &str = "transformers";
/// Timed iterations and those before them, which take seconds each.
const CAPTIONS: [&str; 4] = ["--iterations", "3", "--warmup", "1"];
const STEPS: [&str; 5] = ["--train", "--iterations", "2", "--warmup", "1"];

/// The output of a program that captions.
#[derive(Deserialize)]
struct Captions {
    /// Of whole captions, images encoded and texts generated.
    #[serde(flatten)]
    sample: Sample,
    encode_seconds: f64,
    /// Of the time without the image encoder.
    tokens_per_second: f64,
    /// The new tokens of each caption.
    ids: Vec<Vec<u32>>,
    /// Of our program alone.
    phases: Option<Phases>,
}

/// The parts of captioning a batch.
#[derive(Deserialize, Clone, Copy)]
struct Phases {
    encoder: Phase,
    /// The keys and values of the images in all blocks of the decoder.
    keys: Phase,
    /// A step of the decoder, in the mean.
    step: Phase,
}

/// The time and the work of one part.
#[derive(Deserialize, Clone, Copy)]
struct Phase {
    seconds: f64,
    gflop: f64,
}

/// The outputs of our program and of the peer, one a round.
struct Sides<T> {
    ours: Vec<T>,
    theirs: Vec<T>,
}

/// All measurements in one precision.
struct Measurements {
    precision: &'static str,
    limits: Vec<f64>,
    captions: Sides<Captions>,
    training: Sides<Sample>,
}

/// A part in the table: the median of its seconds, and its share of the matrix limit.
#[derive(Serialize)]
struct Part {
    seconds: f64,
    share_of_limit: f64,
}

/// The parts of captioning in one precision.
#[derive(Serialize)]
struct Decoding {
    precision: &'static str,
    encoder: Part,
    keys: Part,
    step: Part,
    tokens_per_second: f64,
    /// The share of tokens that are those of our f32 captions.
    equal_tokens: f64,
    peer: Option<PeerDecoding>,
}

/// The same of the peer.
#[derive(Serialize)]
struct PeerDecoding {
    encode_seconds: f64,
    tokens_per_second: f64,
    equal_tokens: f64,
    /// Our tokens per second over the peer's.
    ratio: f64,
    /// Our peak memory over the peer's.
    memory_ratio: f64,
}

#[derive(Serialize)]
struct CaptionReport {
    #[serde(flatten)]
    whole: Report,
    decoding: Vec<Decoding>,
}

/// The programs, and the folder of the model.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    example: PathBuf,
    python: &'a Path,
    model: PathBuf,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let products = workspace.build(&libtorch, "mm-clip", &["--example", "bench_clip"])?;
    let products = Program::ours(products, libtorch.lib(), PathBuf::new());
    let example = workspace.build(&libtorch, "mm-caption", &["--example", "bench_caption"])?;
    let model = example.with_file_name("bench_caption_model");
    let bench = Bench { workspace, libtorch, example, python: &options.peer_python, model };
    bench.make_model()?;

    let mut all: Vec<_> = products.precisions()?.into_iter().map(Measurements::new).collect();
    for _ in options.output.rounds() {
        for measurements in &mut all {
            let limit = products.limit(measurements.precision)?;
            eprintln!("  limit {}: {limit:.0} GFLOP/s", measurements.precision);
            measurements.limits.push(limit);
            bench.measure(measurements)?;
        }
    }
    let report = CaptionReport::new(&all);
    let text = report.markdown();
    write_section(&workspace.path("docs/benchmarks.md"), "bench caption", &text)?;
    options.output.print(&report, &text)
}

impl Bench<'_> {
    fn ours(&self, precision: &str, work: &[&str]) -> Command {
        let mut command = self.workspace.program(&self.example, &self.libtorch);
        command.arg("--folder").arg(&self.model).args(["--precision", precision]).args(work);
        command
    }

    fn peer(&self) -> Command {
        peer_script(self.python, &self.workspace.path("xtask/peers/caption.py"))
    }

    fn theirs(&self, precision: &str, work: &[&str]) -> Command {
        let mut command = self.peer();
        command.arg("--folder").arg(&self.model).args(["--precision", precision]).args(work);
        command
    }

    /// Writes the model and the pixels that both sides read, if an earlier run has not.
    fn make_model(&self) -> Result<()> {
        if self.model.join("pixels.safetensors").exists() {
            return Ok(()); // the file that is written last
        }
        run_command(self.peer().arg("--make").arg(&self.model).args(["--seed", "0"]))
    }

    /// Measures one precision once: our program, then the peer, which has no int8, at each work.
    fn measure(&self, measurements: &mut Measurements) -> Result<()> {
        let Measurements { precision, captions, training, .. } = measurements;
        let has_peer = *precision != "int8";
        captions.ours.push(print_captions("mm", measured(&mut self.ours(precision, &CAPTIONS), "mm")?));
        if has_peer {
            let theirs = measured(&mut self.theirs(precision, &CAPTIONS), PEER)?;
            captions.theirs.push(print_captions(PEER, theirs));
            training.ours.push(print_steps("mm", measured(&mut self.ours(precision, &STEPS), "mm")?));
            training.theirs.push(print_steps(PEER, measured(&mut self.theirs(precision, &STEPS), PEER)?));
        }
        Ok(())
    }
}

fn print_captions(program: &str, captions: Captions) -> Captions {
    let Captions { sample, encode_seconds, tokens_per_second, .. } = &captions;
    eprintln!(
        "  {program}: {:.2} captions/s, encoder {encode_seconds:.2} s, then {tokens_per_second:.1} tokens/s, \
         {:.0} MB",
        sample.rate(),
        sample.peak_mb
    );
    captions
}

fn print_steps(program: &str, steps: Sample) -> Sample {
    eprintln!("  {program}: training {:.2} pairs/s, {:.0} MB", steps.rate(), steps.peak_mb);
    steps
}

impl Measurements {
    fn new(precision: &'static str) -> Self {
        let captions = Sides { ours: Vec::new(), theirs: Vec::new() };
        let training = Sides { ours: Vec::new(), theirs: Vec::new() };
        Self { precision, limits: Vec::new(), captions, training }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let samples = |side: &[Captions]| side.iter().map(|captions| captions.sample.clone()).collect();
        let captions = Sides { ours: samples(&self.captions.ours), theirs: samples(&self.captions.theirs) };
        let limit = median(&self.limits);
        let row = |title: &'static str, sides: &Sides<Sample>| {
            let Sides { ours, theirs } = sides;
            let peer = (!theirs.is_empty()).then(|| PeerResult::new(PEER, ours, theirs, limit));
            (!ours.is_empty()).then(|| Row::new([title, self.precision, ""], ours, limit, peer))
        };
        [row("captions", &captions), row("training pairs", &self.training)].into_iter().flatten()
    }

    /// The parts; `reference` are our captions in f32.
    fn decoding(&self, reference: &[Vec<u32>]) -> Option<Decoding> {
        let Sides { ours, theirs } = &self.captions;
        let limit = median(&self.limits);
        let phases: Vec<Phases> = ours.iter().filter_map(|captions| captions.phases).collect();
        let part = |of: fn(&Phases) -> Phase| {
            let seconds = median(&phases.iter().map(|phases| of(phases).seconds).collect::<Vec<_>>());
            Some(Part { seconds, share_of_limit: of(phases.first()?).gflop / seconds / limit })
        };
        let all = |side: &[Captions], of: fn(&Captions) -> f64| -> f64 {
            median(&side.iter().map(of).collect::<Vec<_>>())
        };
        let ratio = |of: fn(&Captions) -> f64| {
            median(&ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect::<Vec<_>>())
        };
        let peer = theirs.first().map(|first| PeerDecoding {
            encode_seconds: all(theirs, |captions| captions.encode_seconds),
            tokens_per_second: all(theirs, |captions| captions.tokens_per_second),
            equal_tokens: equal_share(&first.ids, reference),
            ratio: ratio(|captions| captions.tokens_per_second),
            memory_ratio: ratio(|captions| captions.sample.peak_mb),
        });
        let first = ours.first().filter(|_| !phases.is_empty())?;
        Some(Decoding {
            precision: self.precision,
            encoder: part(|phases| phases.encoder)?,
            keys: part(|phases| phases.keys)?,
            step: part(|phases| phases.step)?,
            tokens_per_second: all(ours, |captions| captions.tokens_per_second),
            equal_tokens: equal_share(&first.ids, reference),
            peer,
        })
    }
}

/// The share of tokens that are equal in both, over all places of the captions.
fn equal_share(captions: &[Vec<u32>], reference: &[Vec<u32>]) -> f64 {
    let places: usize = reference.iter().map(Vec::len).sum();
    let pairs = captions.iter().zip(reference).flat_map(|(caption, reference)| caption.iter().zip(reference));
    pairs.filter(|(token, reference)| token == reference).count() as f64 / places.max(1) as f64
}

impl CaptionReport {
    /// The report of `all`, of which the first is f32.
    fn new(all: &[Measurements]) -> Self {
        let limits =
            all.iter().map(|of| Limit { precision: of.precision, gflops: median(&of.limits) }).collect();
        let reference = all.first().and_then(|f32| f32.captions.ours.first());
        let reference = reference.map_or(&[][..], |captions| &captions.ids);
        Self {
            whole: Report::new(IMAGES, limits, all.iter().flat_map(Measurements::rows).collect(), None),
            decoding: all.iter().filter_map(|of| of.decoding(reference)).collect(),
        }
    }

    fn markdown(&self) -> String {
        let head = [
            "precision",
            "program",
            "encoder",
            "keys and values",
            "a step",
            "tokens/s",
            "mm is",
            "equal tokens",
        ];
        let mut lines = vec![head.map(String::from)];
        let mut memory = Vec::new();
        for row in &self.decoding {
            lines.push(row.line());
            if let Some(peer) = &row.peer {
                lines.push(peer.line(row.precision));
                memory.push(format!("{:.2}x in {}", peer.memory_ratio, row.precision));
            }
        }
        let memory = match memory.as_slice() {
            [] => String::new(),
            ratios => format!("\nPeak memory of captioning beside {PEER}': {}.\n", ratios.join(", ")),
        };
        format!("{}\n{}{memory}", self.whole.markdown(), table(&lines))
    }
}

impl Decoding {
    fn line(&self) -> [String; 8] {
        let percent = |share: f64| format!("{:.0}%", share * 100.0);
        let part = |part: &Part| format!("{:.2} s ({})", part.seconds, percent(part.share_of_limit));
        let step = format!("{:.1} ms ({})", self.step.seconds * 1e3, percent(self.step.share_of_limit));
        let tokens = format!("{:.1}", self.tokens_per_second);
        let (encoder, keys, equal) = (part(&self.encoder), part(&self.keys), percent(self.equal_tokens));
        [self.precision.to_owned(), "mm".to_owned(), encoder, keys, step, tokens, String::new(), equal]
    }
}

impl PeerDecoding {
    fn line(&self, precision: &str) -> [String; 8] {
        let (encoder, tokens) =
            (format!("{:.2} s", self.encode_seconds), format!("{:.1}", self.tokens_per_second));
        let (ratio, equal) = (format!("{:.2}x", self.ratio), format!("{:.0}%", self.equal_tokens * 100.0));
        let empty = String::new;
        [precision.to_owned(), PEER.to_owned(), encoder, empty(), empty(), tokens, ratio, equal]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captions(seconds: f64, tokens_per_second: f64, ids: [u32; 4], has_phases: bool) -> Captions {
        let phase = serde_json::json!({ "seconds": 0.5, "gflop": 50 });
        let phases = serde_json::json!({ "encoder": phase, "keys": phase, "step": phase });
        let printed = serde_json::json!({
            "items_per_iteration": 8,
            "seconds": [seconds],
            "gflop_per_iteration": 100,
            "peak_mb": 600 * ids[0],
            "encode_seconds": 0.5,
            "tokens_per_second": tokens_per_second,
            "ids": [ids],
            "phases": has_phases.then_some(phases),
        });
        serde_json::from_value(printed).unwrap()
    }

    #[test]
    fn parts_are_shares_of_the_limit_and_decoding_is_beside_the_peers() {
        let mut f32 = Measurements::new("f32");
        f32.limits = vec![200.0];
        f32.captions.ours.push(captions(2.0, 90.0, [1, 2, 3, 4], true));
        f32.captions.theirs.push(captions(5.0, 12.0, [2, 2, 3, 4], false));
        let mut int8 = Measurements::new("int8");
        int8.limits = vec![400.0];
        int8.captions.ours.push(captions(1.0, 120.0, [1, 2, 9, 9], true));
        let text = CaptionReport::new(&[f32, int8]).markdown();
        let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
        let rows: Vec<String> = text.lines().map(cells).collect();
        for row in [
            "|captions|f32|transformers|1.6|10%|1200|2.50x|",
            "|f32|mm|0.50 s (50%)|0.50 s (50%)|500.0 ms (50%)|90.0||100%|",
            "|f32|transformers|0.50 s|||12.0|7.50x|75%|",
            "|int8|mm|0.50 s (25%)|0.50 s (25%)|500.0 ms (25%)|120.0||50%|",
            "Peak memory of captioning beside transformers': 0.50x in f32.",
        ] {
            assert!(rows.iter().any(|line| line == row), "{row} is not in\n{text}");
        }
    }
}
