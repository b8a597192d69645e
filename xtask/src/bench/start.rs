//! From process start to answer: what one `mm classify` costs, beside the same in transformers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::program::median;
use super::report::Start;
use crate::libtorch::Libtorch;
use crate::workspace::Workspace;

const MODEL: &str = "runs/demo/model";
const LABELS: &str = "a red heart,a cat face,a flag";

/// Times both, or gives `None` where there is no trained demo to classify with.
pub fn measure(workspace: &Workspace, libtorch: &Libtorch, peer: Option<&Path>, rounds: u32) -> Result<Option<Start>> {
    let model = workspace.path(MODEL);
    if !model.exists() {
        eprintln!("start is not measured: {MODEL} is missing, `cargo xtask demo` makes it");
        return Ok(None);
    }
    let mm = workspace.build(libtorch, "mm", &["--bin", "mm"])?;
    let image = env::temp_dir().join(format!("xtask-bench-{}.png", std::process::id()));
    let picture = mm_data::emoji::pairs().first().context("the emoji set is empty")?.png;
    fs::write(&image, picture).with_context(|| format!("cannot write {}", image.display()))?;

    let mut ours = workspace.program(&mm, libtorch);
    ours.arg("classify").arg("--model").arg(&model).args(["--labels", LABELS]).arg(&image);
    let mut theirs = peer.map(|python| {
        let mut command = Command::new(python);
        command.arg(workspace.path("xtask/peers/classify.py")).arg(&model).arg(&image).arg(LABELS);
        command.env_remove("LD_LIBRARY_PATH").env("HF_HUB_OFFLINE", "1");
        command
    });
    let (mut our_seconds, mut their_seconds) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(5) {
        our_seconds.push(seconds(&mut ours)?);
        if let Some(theirs) = &mut theirs {
            their_seconds.push(seconds(theirs)?);
        }
    }
    let _ = fs::remove_file(&image);
    let transformers = (!their_seconds.is_empty()).then(|| median(&their_seconds));
    Ok(Some(Start { seconds: median(&our_seconds), transformers_seconds: transformers }))
}

fn seconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output();
    let elapsed = start.elapsed().as_secs_f64();
    let program = command.get_program().display();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} could not classify with {MODEL}: {}", said.trim().lines().last().unwrap_or("no reason given"));
    }
    Ok(elapsed)
}
