//! `bench vqa`: BLIP-VQA base with random weights beside transformers: answers that are generated, and
//! answers that are ranked. And the training of MCAN, and VQA v2's accuracy.

mod accuracy;
mod training;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use accuracy::Accuracy;
use training::{TrainingBench, TrainingSamples};

use super::Output;
use super::program::{Program, Sample, measured, median};
use super::report::{Limit, PeerResult, Report, Row};
use crate::libtorch::Libtorch;
use crate::markdown::{table, write_section};
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command};

/// Options of `bench vqa`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with the peer, which also makes the model
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    /// A checkout of github.com/GT-Vision-Lab/VQA (commit a013f00), for the official accuracy
    #[arg(long, value_name = "DIR")]
    vqa_checkout: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Images of a batch, with a question each.
const IMAGES: u32 = 8;
const PEER: &str = "transformers";
/// Timed iterations and those before them, which take seconds each.
const ITERATIONS: [&str; 4] = ["--iterations", "3", "--warmup", "1"];

/// The ways to answer, with their titles.
const WORKS: [(&str, &str); 3] =
    [("greedy", "answers, greedy"), ("beams", "answers, 3 beams"), ("rank", "answers, ranked")];
/// Our own scoring of the candidates of `rank` one after the other.
const EACH: &str = "each";

/// The output of a program that answers.
#[derive(Deserialize, Clone)]
struct Answers {
    /// From pixels to answers.
    #[serde(flatten)]
    sample: Sample,
    /// Of images and questions.
    encode_seconds: f64,
}

/// The outputs of one way to answer, one a round.
struct Measurement {
    work: &'static str,
    title: &'static str,
    ours: Vec<Answers>,
    theirs: Vec<Answers>,
}

/// All measurements in one precision.
struct Measurements {
    precision: &'static str,
    limits: Vec<f64>,
    works: Vec<Measurement>,
    each: Vec<Answers>,
    training: TrainingSamples,
}

/// How ranking compares, in one precision.
#[derive(Serialize)]
struct Ranking {
    precision: &'static str,
    /// Seconds of encoding images and questions, which all ways have in common.
    encode: f64,
    /// Seconds after it.
    greedy: f64,
    rank: f64,
    each: f64,
    /// From pixels to answers, ranking over generating greedily.
    over_generate: f64,
    /// Scoring the candidates one after the other over ranking, after the encoding.
    over_rank: f64,
    /// The same of the peer's scoring.
    peer_over_rank: f64,
}

#[derive(Serialize)]
struct VqaReport {
    #[serde(flatten)]
    whole: Report,
    ranking: Vec<Ranking>,
    accuracy: Accuracy,
}

/// The programs, and the folder of the model.
struct Bench<'a> {
    workspace: &'a Workspace,
    libtorch: &'a Libtorch,
    example: PathBuf,
    python: &'a Path,
    model: PathBuf,
}

/// Runs the benchmark, prints it, and writes it into docs/benchmarks.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let products = workspace.build(&libtorch, "mm-clip", &["--example", "bench_clip"])?;
    let products = Program::ours(products, libtorch.lib(), PathBuf::new());
    let example = workspace.build(&libtorch, "mm-vqa", &["--example", "bench_vqa"])?;
    let model = example.with_file_name("bench_vqa_model");
    let python = options.peer_python.as_path();
    let bench = Bench { workspace, libtorch: &libtorch, example, python, model };
    bench.make_model()?;
    let training = TrainingBench::new(workspace, &libtorch, python)?;

    let precisions = products.precisions()?.into_iter().filter(|precision| *precision != "int8");
    let mut all: Vec<_> = precisions.map(Measurements::new).collect();
    for _ in options.output.rounds() {
        for measurements in &mut all {
            let limit = products.limit(measurements.precision)?;
            eprintln!("  limit {}: {limit:.0} GFLOP/s", measurements.precision);
            measurements.limits.push(limit);
            bench.measure(measurements)?;
            training.measure(measurements.precision, &mut measurements.training)?;
        }
    }
    let official = (python, options.vqa_checkout.as_deref());
    let rounds = options.output.rounds;
    let accuracy = Accuracy::measure(workspace, &libtorch, official, rounds)?;
    let report = VqaReport::new(&all, accuracy);
    let text = report.markdown();
    write_section(&workspace.path("docs/benchmarks.md"), "bench vqa", &text)?;
    options.output.print(&report, &text)
}

impl Bench<'_> {
    fn peer(&self) -> Command {
        peer_script(self.python, &self.workspace.path("xtask/peers/vqa.py"))
    }

    /// Writes the model, its images and its answers, if an earlier run has not.
    fn make_model(&self) -> Result<()> {
        if self.model.join("answers.json").exists() {
            return Ok(()); // the file that is written last
        }
        run_command(self.peer().arg("--make").arg(&self.model).args(["--seed", "0"]))
    }

    /// Measures one precision once: at each work our program, then the peer.
    fn measure(&self, measurements: &mut Measurements) -> Result<()> {
        let precision = measurements.precision;
        let run = |mut command: Command, name: &str, work: &str| -> Result<Answers> {
            command.arg(work).arg("--folder").arg(&self.model);
            command.args(["--precision", precision]).args(ITERATIONS);
            let answers: Answers = measured(&mut command, &format!("{name} ({work} {precision})"))?;
            eprintln!(
                "  {name}, {work}: {:.2} answers/s, {:.2} s for images and questions, {:.0} MB",
                answers.sample.rate(),
                answers.encode_seconds,
                answers.sample.peak_mb
            );
            Ok(answers)
        };
        let ours = |work: &str| run(self.workspace.program(&self.example, self.libtorch), "mm", work);
        for measurement in &mut measurements.works {
            measurement.ours.push(ours(measurement.work)?);
            measurement.theirs.push(run(self.peer(), PEER, measurement.work)?);
        }
        measurements.each.push(ours(EACH)?);
        Ok(())
    }
}

impl Answers {
    /// Seconds after images and questions are encoded.
    fn answer_seconds(&self) -> f64 {
        self.seconds() - self.encode_seconds
    }

    fn seconds(&self) -> f64 {
        f64::from(IMAGES) / self.sample.rate()
    }
}

impl Measurements {
    fn new(precision: &'static str) -> Self {
        let work = |(work, title)| Measurement { work, title, ours: Vec::new(), theirs: Vec::new() };
        Self {
            precision,
            limits: Vec::new(),
            works: WORKS.into_iter().map(work).collect(),
            each: Vec::new(),
            training: TrainingSamples::default(),
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let samples = |side: &[Answers]| side.iter().map(|one| one.sample.clone()).collect::<Vec<_>>();
        let limit = median(&self.limits);
        let answers = self.works.iter().map(move |work| {
            let (ours, theirs) = (samples(&work.ours), samples(&work.theirs));
            let peer = PeerResult::new(PEER, &ours, &theirs, limit);
            Row::new([work.title, self.precision, ""], &ours, limit, [peer])
        });
        answers.chain([self.training.row(self.precision, limit)])
    }

    fn ranking(&self) -> Option<Ranking> {
        let find = |name: &str| self.works.iter().find(|work| work.work == name);
        let (greedy, rank) = (find("greedy")?, find("rank")?);
        let middle =
            |side: &[Answers], of: fn(&Answers) -> f64| median(&side.iter().map(of).collect::<Vec<_>>());
        // Ratios are of the same round.
        let ratio = |above: &[Answers], below: &[Answers], of: fn(&Answers) -> f64| {
            median(&above.iter().zip(below).map(|(a, b)| of(a) / of(b)).collect::<Vec<_>>())
        };
        Some(Ranking {
            precision: self.precision,
            encode: middle(&rank.ours, |one| one.encode_seconds),
            greedy: middle(&greedy.ours, Answers::answer_seconds),
            rank: middle(&rank.ours, Answers::answer_seconds),
            each: middle(&self.each, Answers::answer_seconds),
            over_generate: ratio(&rank.ours, &greedy.ours, Answers::seconds),
            over_rank: ratio(&self.each, &rank.ours, Answers::answer_seconds),
            peer_over_rank: ratio(&rank.theirs, &rank.ours, Answers::answer_seconds),
        })
    }
}

impl VqaReport {
    fn new(all: &[Measurements], accuracy: Accuracy) -> Self {
        let limits =
            all.iter().map(|of| Limit { precision: of.precision, gflops: median(&of.limits) }).collect();
        Self {
            whole: Report::new(IMAGES, limits, all.iter().flat_map(Measurements::rows).collect(), None),
            ranking: all.iter().filter_map(Measurements::ranking).collect(),
            accuracy,
        }
    }

    fn markdown(&self) -> String {
        let head = [
            "precision",
            "images and questions",
            "then greedy",
            "then ranked",
            "one by one",
            "one by one, over ranked",
            "transformers' one by one, over ranked",
            "ranked over greedy, whole",
        ];
        let mut lines = vec![head.map(String::from)];
        lines.extend(self.ranking.iter().map(Ranking::line));
        format!("{}\n{}\n{}", self.whole.markdown(), table(&lines), self.accuracy.markdown())
    }
}

impl Ranking {
    fn line(&self) -> [String; 8] {
        let [encode, greedy, rank, each] =
            [self.encode, self.greedy, self.rank, self.each].map(|seconds| format!("{seconds:.2} s"));
        let [over_rank, peer_over_rank, over_generate] =
            [self.over_rank, self.peer_over_rank, self.over_generate].map(|ratio| format!("{ratio:.2}x"));
        [self.precision.to_owned(), encode, greedy, rank, each, over_rank, peer_over_rank, over_generate]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(seconds: f64, encode_seconds: f64) -> Answers {
        let printed = serde_json::json!({
            "items_per_iteration": 8,
            "seconds": [seconds],
            "gflop_per_iteration": 100,
            "peak_mb": 600,
            "encode_seconds": encode_seconds,
            "answers": [[1, 2]],
        });
        serde_json::from_value(printed).unwrap()
    }

    #[test]
    fn ranking_is_compared_with_generating_and_with_scoring_one_by_one() {
        let mut f32 = Measurements::new("f32");
        f32.limits = vec![200.0];
        for (work, ours, theirs) in [(0, 5.0, 10.0), (1, 5.5, 12.0), (2, 6.0, 24.0)] {
            f32.works[work].ours.push(answers(ours, 4.0));
            f32.works[work].theirs.push(answers(theirs, 8.0));
        }
        f32.each.push(answers(12.0, 4.0));
        f32.training = TrainingSamples::of(answers(1.0, 0.0).sample, answers(1.5, 0.0).sample);
        let text = VqaReport::new(&[f32], Accuracy::of(1000, 0.5, Some(50.0))).markdown();
        assert!(text.contains("over 1000 questions, with reading: 0.50 s; the official"), "{text}");
        let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
        let rows: Vec<String> = text.lines().map(cells).collect();
        for row in [
            "|answers, greedy|f32|transformers|0.8|5%|600|2.00x|",
            "|answers, ranked|f32|transformers|0.3|2%|600|4.00x|",
            "|training MCAN-small, batch 64|f32|PyTorch|5.3|33%|600|1.50x|",
            "|f32|4.00 s|1.00 s|2.00 s|8.00 s|4.00x|8.00x|1.20x|",
        ] {
            assert!(rows.iter().any(|line| line == row), "{row} is not in\n{text}");
        }
    }
}
