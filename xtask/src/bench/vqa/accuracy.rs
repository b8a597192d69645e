//! VQA v2's accuracy over files of the size of val2014, beside the official program.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::program::{measured, median};
use crate::libtorch::Libtorch;
use crate::workspace::{Workspace, peer_script, run as run_command};

/// Questions of val2014.
const QUESTIONS: &str = "214354";

/// The output of our program.
#[derive(Deserialize)]
struct Measured {
    questions: u32,
    /// With reading.
    seconds: f64,
    /// From the official score of a question, where that is known.
    largest_difference: Option<f64>,
}

/// The output of the official program.
#[derive(Deserialize)]
struct Official {
    seconds: f64,
}

/// How long both take.
#[derive(Serialize)]
pub struct Accuracy {
    questions: u32,
    seconds: f64,
    official_seconds: Option<f64>,
}

impl Accuracy {
    /// Measures ours `rounds` times, after the official program of `checkout`, which takes minutes, once.
    ///
    /// # Errors
    /// A program fails, or a question has another score.
    pub fn measure(
        workspace: &Workspace,
        libtorch: &Libtorch,
        (python, checkout): (&Path, Option<&Path>),
        rounds: u32,
    ) -> Result<Self> {
        let example = workspace.build(libtorch, "mm-vqa", &["--example", "bench_vqa_metrics"])?;
        let files = example.with_file_name("bench_vqa_metrics_files");
        let ours = |arguments: &[&Path]| {
            let mut command = workspace.program(&example, libtorch);
            command.args(arguments);
            command
        };
        run_command(&mut ours(&["make".as_ref(), &files, QUESTIONS.as_ref()]))?;
        let scores = files.join("scores.json");
        let official = |checkout: &Path| -> Result<Official> {
            let mut peer = peer_script(python, &workspace.path("xtask/peers/vqa_metrics.py"));
            measured(peer.args([checkout, &files, &scores]), "VQA v2's official program")
        };
        let official = checkout.map(official).transpose()?;
        let mut score = vec![Path::new("score"), &files];
        score.extend(official.is_some().then_some(scores.as_path()));
        let measured: Vec<Measured> =
            (0..rounds).map(|_| measured(&mut ours(&score), "bench_vqa_metrics")).collect::<Result<_>>()?;
        let difference = measured.iter().filter_map(|one| one.largest_difference).fold(0.0, f64::max);
        ensure!(difference < 1e-9, "a score differs from the official one by {difference:.1e}");
        Ok(Self {
            questions: measured.first().map_or(0, |one| one.questions),
            seconds: median(&measured.iter().map(|one| one.seconds).collect::<Vec<_>>()),
            official_seconds: official.map(|official| official.seconds),
        })
    }

    pub fn markdown(&self) -> String {
        let Self { questions, seconds, official_seconds } = self;
        let peer = official_seconds.map(|official| {
            format!(
                "; the official program, with the same scores: {official:.0} s ({:.0}x)",
                official / seconds
            )
        });
        format!(
            "VQA v2's accuracy over {questions} questions, with reading: {seconds:.2} s{}.\n",
            peer.unwrap_or_default()
        )
    }

    #[cfg(test)]
    pub fn of(questions: u32, seconds: f64, official_seconds: Option<f64>) -> Self {
        Self { questions, seconds, official_seconds }
    }
}
