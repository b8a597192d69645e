//! `bench vlm`: a model of SmolVLM-256M's sizes with random weights beside transformers: the first token of
//! an answer about an image, the tokens after it beside the bandwidth of memory, and training of adapters.

mod decoding;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use decoding::{Answer, Decoding, largest_difference};

use super::Output;
use super::program::{Program, Sample, measured, median};
use super::report::{Limit, PeerResult, Report, Row};
use crate::libtorch::Libtorch;
use crate::markdown::{table, write_section};
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command};

/// Options of `bench vlm`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer, which also makes the model
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    /// Measure a model of tiny sizes, to try the benchmark, and leave docs/benchmarks.md unchanged
    #[arg(long)]
    tiny: bool,
    #[command(flatten)]
    output: Output,
}

const PEER: &str = "transformers";
/// Timed iterations and those before them, which take seconds each.
const ANSWERS: [&str; 5] = ["generate", "--iterations", "3", "--warmup", "1"];
const STEPS: [&str; 5] = ["train", "--iterations", "2", "--warmup", "1"];

/// The output of a program that trains.
#[derive(Deserialize)]
struct Steps {
    #[serde(flatten)]
    sample: Sample,
    /// The first.
    loss: f64,
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
    answers: Sides<Answer>,
    steps: Sides<Steps>,
}

#[derive(Serialize)]
struct VlmReport {
    #[serde(flatten)]
    whole: Report,
    decoding: Vec<Decoding>,
    /// The largest difference of the first losses of training in f32.
    losses_off: Option<f64>,
}

/// The programs, and the folder of the model.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: Libtorch,
    example: PathBuf,
    python: &'a Path,
    model: PathBuf,
    tiny: bool,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let products = workspace.build(&libtorch, "mm-clip", &["--example", "bench_clip"])?;
    let products = Program::ours(products, libtorch.lib(), PathBuf::new());
    let example = workspace.build(&libtorch, "mm-vqa", &["--example", "bench_vlm"])?;
    let name = if options.tiny { "bench_vlm_tiny_model" } else { "bench_vlm_model" };
    let (model, tiny) = (example.with_file_name(name), options.tiny);
    let bench = Bench { workspace, libtorch, example, python: &options.peer_python, model, tiny };
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
    let report = VlmReport::new(&all);
    let text = report.markdown();
    if !options.tiny {
        write_section(&workspace.path("docs/benchmarks.md"), "bench vlm", &text)?;
    }
    options.output.print(&report, &text)
}

impl Bench<'_> {
    fn peer(&self) -> Command {
        peer_script(self.python, &self.workspace.path("xtask/peers/vlm.py"))
    }

    /// Writes the model and the inputs that both sides read, if an earlier run has not.
    fn make_model(&self) -> Result<()> {
        if self.model.join("inputs.safetensors").exists() {
            return Ok(()); // the file that is written last
        }
        let mut peer = self.peer();
        peer.arg("--make").arg(&self.model).args(["--seed", "0"]);
        run_command(if self.tiny { peer.arg("--tiny") } else { &mut peer })
    }

    /// Runs `work` in our program.
    fn ours<T: DeserializeOwned>(&self, precision: &str, work: [&str; 5]) -> Result<T> {
        self.measured(self.workspace.program(&self.example, &self.libtorch), "mm", precision, work)
    }

    /// Runs `work` in the peer. The matrix products of both sides are the same: `gflop`.
    fn theirs<T: DeserializeOwned>(&self, precision: &str, work: [&str; 5], gflop: &[f64]) -> Result<T> {
        let mut peer = self.peer();
        let gflop = gflop.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        peer.args(["--gflop", &gflop]);
        self.measured(peer, PEER, precision, work)
    }

    fn measured<T: DeserializeOwned>(
        &self,
        mut command: Command,
        program: &str,
        precision: &str,
        work: [&str; 5],
    ) -> Result<T> {
        command.args(work).arg("--folder").arg(&self.model).args(["--precision", precision]);
        measured(&mut command, &format!("{program} ({} {precision})", work[0]))
    }

    /// Measures one precision once: our program, then the peer, which has no int8, at each work.
    fn measure(&self, measurements: &mut Measurements) -> Result<()> {
        let Measurements { precision, answers, steps, .. } = measurements;
        let has_peer = *precision != "int8";
        let ours: Answer = self.ours(precision, ANSWERS)?;
        ours.print("mm");
        if has_peer {
            let gflop = [ours.first.gflop_per_iteration, ours.later.gflop_per_iteration];
            let theirs: Answer = self.theirs(precision, ANSWERS, &gflop)?;
            theirs.print(PEER);
            answers.theirs.push(theirs);
        }
        answers.ours.push(ours);
        if has_peer {
            let ours = print_steps("mm", self.ours(precision, STEPS)?);
            let gflop = [ours.sample.gflop_per_iteration];
            steps.theirs.push(print_steps(PEER, self.theirs(precision, STEPS, &gflop)?));
            steps.ours.push(ours);
        }
        Ok(())
    }
}

fn print_steps(program: &str, steps: Steps) -> Steps {
    let Steps { sample, loss } = &steps;
    eprintln!(
        "  {program}: training {:.1} tokens/s, loss {loss:.4}, {:.0} MB",
        sample.rate(),
        sample.peak_mb
    );
    steps
}

impl Measurements {
    fn new(precision: &'static str) -> Self {
        let answers = Sides { ours: Vec::new(), theirs: Vec::new() };
        let steps = Sides { ours: Vec::new(), theirs: Vec::new() };
        Self { precision, limits: Vec::new(), answers, steps }
    }

    fn rows(&self) -> Vec<Row> {
        let (answers, steps) = (&self.answers, &self.steps);
        let of_answers = |of: fn(&Answer) -> &Sample| Sides {
            ours: answers.ours.iter().map(|answer| of(answer).clone()).collect(),
            theirs: answers.theirs.iter().map(|answer| of(answer).clone()).collect(),
        };
        let of_steps = |side: &[Steps]| side.iter().map(|steps| steps.sample.clone()).collect();
        let works = [
            ("first tokens, image and prompt", of_answers(|answer| &answer.first)),
            ("tokens after it", of_answers(|answer| &answer.later)),
            (
                "training tokens, LoRA, batch 4",
                Sides { ours: of_steps(&steps.ours), theirs: of_steps(&steps.theirs) },
            ),
        ];
        let limit = median(&self.limits);
        let works = works.into_iter().filter(|(_, sides)| !sides.ours.is_empty());
        works
            .map(|(title, Sides { ours, theirs })| {
                let peer = (!theirs.is_empty()).then(|| PeerResult::new(PEER, &ours, &theirs, limit));
                Row::new([title, self.precision, ""], &ours, limit, peer)
            })
            .collect()
    }

    /// The answers of both sides; `reference` is ours in f32.
    fn decoding(&self, reference: &Answer) -> impl Iterator<Item = Decoding> {
        let Sides { ours, theirs } = &self.answers;
        let sides = [("mm", ours), (PEER, theirs)];
        sides
            .into_iter()
            .filter_map(|(program, rounds)| Decoding::new([self.precision, program], rounds, reference))
    }
}

impl VlmReport {
    /// The report of `all`, of which the first is f32.
    fn new(all: &[Measurements]) -> Self {
        let limits =
            all.iter().map(|of| Limit { precision: of.precision, gflops: median(&of.limits) }).collect();
        let reference = all.first().and_then(|f32| f32.answers.ours.first());
        let losses = all.first().map(|f32| {
            let Sides { ours, theirs } = &f32.steps;
            largest_difference(ours.iter().zip(theirs).map(|(ours, theirs)| (ours.loss, theirs.loss)))
        });
        Self {
            whole: Report::new(1, limits, all.iter().flat_map(Measurements::rows).collect(), None),
            decoding: reference
                .map(|reference| all.iter().flat_map(|of| of.decoding(reference)).collect())
                .unwrap_or_default(),
            losses_off: losses,
        }
    }

    fn markdown(&self) -> String {
        let head = [
            "precision",
            "program",
            "first token",
            "a token",
            "it reads",
            "GB/s",
            "of the bandwidth",
            "equal tokens",
            "logits off by",
        ];
        let mut lines = vec![head.map(String::from)];
        lines.extend(self.decoding.iter().map(Decoding::line));
        let losses = self.losses_off.map(|off| {
            format!("\nThe first losses of training in f32 differ from {PEER}' by at most {off:.1e}.\n")
        });
        format!("{}\n{}{}", self.whole.markdown(), table(&lines), losses.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sample(items: f64, seconds: f64) -> Value {
        json!({
            "items_per_iteration": items,
            "seconds": [seconds],
            "gflop_per_iteration": 100,
            "peak_mb": 600,
        })
    }

    fn answer(first: f64, later: f64, ids: [u32; 4], memory: Value) -> Answer {
        let printed = json!({
            "first": sample(1.0, first),
            "later": sample(3.0, later),
            "ids": ids,
            "logits": [ids[0], 0.5],
            "memory": memory,
        });
        serde_json::from_value(printed).unwrap()
    }

    fn steps(seconds: f64, loss: f64) -> Steps {
        let mut printed = sample(600.0, seconds);
        printed["loss"] = loss.into();
        serde_json::from_value(printed).unwrap()
    }

    #[test]
    fn tokens_are_beside_the_peers_and_beside_the_bandwidth() {
        let memory = json!({"read_mb": 500.0, "bandwidth": 20.0});
        let mut f32 = Measurements::new("f32");
        f32.limits = vec![200.0];
        f32.answers.ours.push(answer(1.0, 0.1, [1, 2, 3, 4], memory));
        f32.answers.theirs.push(answer(1.5, 0.3, [1, 2, 3, 4], Value::Null));
        f32.steps.ours.push(steps(4.0, 10.5));
        f32.steps.theirs.push(steps(5.0, 10.25));
        let mut int8 = Measurements::new("int8");
        int8.limits = vec![400.0];
        int8.answers.ours.push(answer(0.5, 0.05, [2, 2, 9, 9], json!({"read_mb": 200.0, "bandwidth": 20.0})));
        let text = VlmReport::new(&[f32, int8]).markdown();
        let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
        let rows: Vec<String> = text.lines().map(cells).collect();
        for row in [
            "|first tokens, image and prompt|f32|transformers|0.7|33%|600|1.50x|",
            "|tokens after it|f32|transformers|10.0|167%|600|3.00x|",
            "|training tokens, LoRA, batch 4|f32|transformers|120.0|10%|600|1.25x|",
            "|f32|mm|1.00 s|33.3 ms|500 MB|15.0|75% of 20.0|4 of 4|0.0e0|",
            "|f32|transformers|1.50 s|100.0 ms||||4 of 4|0.0e0|",
            "|int8|mm|0.50 s|16.7 ms|200 MB|12.0|60% of 20.0|1 of 4|1.0e0|",
            "The first losses of training in f32 differ from transformers' by at most 2.5e-1.",
        ] {
            assert!(rows.iter().any(|line| line == row), "{row} is not in\n{text}");
        }
    }
}
