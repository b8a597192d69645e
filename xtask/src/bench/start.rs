//! The time from process start to answer of one `mm classify`, and of the same in transformers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::program::median;
use super::report::Start;
use crate::data;
use crate::libtorch::Libtorch;
use crate::workspace::{Workspace, peer_script, run as run_command, stdout_of};

const LABELS: &str = "a red heart,a cat face,a flag";

/// Times both with the model in the folder `model`.
pub fn measure(
    workspace: &Workspace,
    libtorch: &Libtorch,
    model: &Path,
    peer: Option<&Path>,
    rounds: u32,
) -> Result<Start> {
    let mm = workspace.build(libtorch, "mm", &["--bin", "mm"])?;
    // In cargo's target folder, beside the program, and kept for the next run.
    let emoji = mm.with_file_name("bench_emoji");
    if !emoji.exists() {
        run_command(data::emoji(workspace, &emoji).stdout(Stdio::null()))?;
    }
    let mut pictures = fs::read_dir(emoji.join("images")).context("the emoji set has no pictures")?;
    let image = pictures.next().context("the emoji set is empty")??.path();

    let mut ours = workspace.program(&mm, libtorch);
    ours.arg("classify").arg("--model").arg(model).args(["--labels", LABELS]).arg(&image);
    let mut theirs = peer.map(|python| {
        let mut command = peer_script(python, &workspace.path("xtask/peers/classify.py"));
        command.arg(model).arg(&image).arg(LABELS);
        command
    });
    let mut our_seconds = Vec::new();
    let mut their_seconds = Vec::new();
    for _ in 0..rounds.max(5) {
        our_seconds.push(seconds(&mut ours)?);
        if let Some(theirs) = &mut theirs {
            their_seconds.push(seconds(theirs)?);
        }
    }
    let transformers = (!their_seconds.is_empty()).then(|| median(&their_seconds));
    Ok(Start { seconds: median(&our_seconds), transformers_seconds: transformers })
}

fn seconds(command: &mut Command) -> Result<f64> {
    let failure = format!("{} could not classify", command.get_program().display());
    let start = Instant::now();
    stdout_of(command.stdin(Stdio::null()), &failure)?;
    Ok(start.elapsed().as_secs_f64())
}
