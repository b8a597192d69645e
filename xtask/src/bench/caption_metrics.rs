//! `bench caption-metrics`: BLEU, ROUGE-L and CIDEr-D of COCO captions, beside pycocoevalcap.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Output;
use super::program::{measured, median};
use crate::coco_captions;
use crate::markdown::{table, today, write_section};
use crate::processor;
use crate::setup;
use crate::workspace::{Workspace, peer_script, run as run_command};

/// Options of `bench caption-metrics`.
#[derive(clap::Args)]
pub struct Options {
    /// A Python with pycocoevalcap; it also downloads the captions where they are missing
    #[arg(long, value_name = "PYTHON")]
    peer_python: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Images of val2014, with one caption to measure and about four references each.
const IMAGES: &str = "5000";

/// The output of a program.
#[derive(Deserialize)]
struct Measured {
    images: u32,
    seconds: f64,
    /// BLEU-1 to BLEU-4, ROUGE-L, CIDEr-D.
    scores: [f64; 6],
}

#[derive(Serialize)]
struct Report {
    date: String,
    images: u32,
    seconds: f64,
    pycocoevalcap_seconds: f64,
    times_pycocoevalcap: f64,
    largest_difference: f64,
}

/// Runs the benchmark, prints it, and writes it into docs/caption-metrics.md.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let captions = workspace.path("data/coco-captions");
    coco_captions::install(&captions, &options.peer_python)?;
    let libtorch = setup::ensure(workspace)?;
    let example = workspace.build(&libtorch, "mm-caption", &["--example", "bench_caption_metrics"])?;
    let files = example.with_file_name("bench_caption_metrics_files");
    let captions = captions.join("captions_val2014.json");
    let ours = |arguments: &[&Path]| {
        let mut command = workspace.program(&example, &libtorch);
        command.args(arguments);
        command
    };
    run_command(&mut ours(&["make".as_ref(), &captions, &files, IMAGES.as_ref()]))?;
    let (references, hypotheses) = (files.join("references.json"), files.join("hypotheses.json"));
    let mut rounds = Vec::new();
    for _ in options.output.rounds() {
        let mut peer = peer_script(&options.peer_python, &workspace.path("xtask/peers/caption_metrics.py"));
        let theirs: Measured = measured(peer.args([&references, &hypotheses]), "pycocoevalcap")?;
        let mut score = ours(&["score".as_ref(), &references, &hypotheses]);
        let ours: Measured = measured(&mut score, "bench_caption_metrics")?;
        eprintln!("  pycocoevalcap {:.2} s, mm {:.2} s", theirs.seconds, ours.seconds);
        rounds.push((ours, theirs));
    }
    let report = summary(&rounds)?;
    let text = markdown(&report);
    write_section(&workspace.path("docs/caption-metrics.md"), "bench caption-metrics", &text)?;
    options.output.print(&report, &text)
}

/// The medians over the rounds, of the ratios too.
fn summary(rounds: &[(Measured, Measured)]) -> Result<Report> {
    let of =
        |value: &dyn Fn(&(Measured, Measured)) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let apart = |(ours, theirs): &(Measured, Measured)| {
        let pairs = ours.scores.iter().zip(&theirs.scores);
        pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max)
    };
    let report = Report {
        date: today(),
        images: rounds.first().map_or(0, |(ours, _)| ours.images),
        seconds: of(&|(ours, _)| ours.seconds),
        pycocoevalcap_seconds: of(&|(_, theirs)| theirs.seconds),
        times_pycocoevalcap: of(&|(ours, theirs)| theirs.seconds / ours.seconds),
        largest_difference: rounds.iter().map(apart).fold(0.0, f64::max),
    };
    let difference = report.largest_difference;
    ensure!(difference < 1e-9, "the scores differ from pycocoevalcap's by up to {difference:.1e}");
    Ok(report)
}

fn markdown(report: &Report) -> String {
    let line = |program: &str, seconds: f64, ratio: String| {
        [
            program.to_owned(),
            format!("{seconds:.2}"),
            format!("{:.0}", f64::from(report.images) / seconds),
            ratio,
        ]
    };
    let lines = [
        ["program", "seconds", "images/s", "mm is"].map(String::from),
        line("pycocoevalcap", report.pycocoevalcap_seconds, String::new()),
        line("mm", report.seconds, format!("{:.1}x", report.times_pycocoevalcap)),
    ];
    format!(
        "Measured on {}, {}, {} images of COCO val2014, medians;\n\
         the largest difference of a score is {:.0e}.\n\n{}",
        report.date,
        processor::name(),
        report.images,
        report.largest_difference,
        table(&lines)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ours: f64, theirs: f64, apart: f64) -> (Measured, Measured) {
        let of = |seconds, score| Measured { images: 5000, seconds, scores: [score; 6] };
        (of(ours, 0.5), of(theirs, 0.5 + apart))
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds() {
        let report =
            summary(&[round(0.5, 10.0, 0.0), round(1.0, 10.0, 1e-12), round(0.4, 10.0, 0.0)]).unwrap();
        assert_eq!((report.times_pycocoevalcap, report.seconds), (20.0, 0.5));
        assert!(markdown(&report).contains("20.0x"));
    }

    #[test]
    fn other_scores_than_the_peers_are_an_error() {
        let error = summary(&[round(0.5, 10.0, 1e-3)]).err().unwrap().to_string();
        assert_eq!(error, "the scores differ from pycocoevalcap's by up to 1.0e-3");
    }
}
