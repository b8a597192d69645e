//! `cargo xtask demo documents`: a model that reads invoices, and beside it one that never sees the page.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::ranks;
use crate::run::execute;
use crate::workspace::Workspace;

const CONFIG: &str = "configs/document/invoices.toml";
const RUN: &str = "demo-documents";
const BLIND_RUN: &str = "demo-documents-blind";

/// What makes a run blind. It learns all that it can, which fields there are and what is usual in them, in a
/// fraction of the steps.
const BLIND: [&str; 6] = [
    "input.blind=true",
    "loss.characters=0",
    "loss.attention=0",
    "train.steps=300",
    "train.checkpoint_every=300",
    "eval.every=300",
];

/// Runs the demo.
pub fn run(workspace: &Workspace, seed: Option<u64>, force: bool) -> Result<()> {
    let root = workspace.path("");
    for name in [RUN, BLIND_RUN] {
        let folder = workspace.path(format!("runs/{name}"));
        if force && folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    ensure!(
        !workspace.path(format!("runs/{RUN}/report.html")).exists(),
        "runs/{RUN} holds a finished demo: look at runs/{RUN}/report.html, or start again with `cargo xtask \
         demo documents --force`"
    );
    let train = |name: &str, overrides: &[&str]| {
        let mut all = vec![format!("run.name={name}")];
        all.extend(seed.map(|seed| format!("run.seed={seed}")));
        all.extend(overrides.iter().map(|&text| text.to_owned()));
        execute(workspace, &root, Path::new(CONFIG), &all, &ranks::Options::default())
    };
    if !workspace.path(format!("runs/{BLIND_RUN}/model")).exists() {
        train(BLIND_RUN, &BLIND)?;
    }
    let blind = format!("metrics.blind=runs/{BLIND_RUN}/model");
    let finished = train(RUN, &[&blind])?;
    let mm = workspace.show(&finished.mm);
    println!("\nLook at runs/{RUN}/report.html: pages with what was read, and where.");
    println!("The trained model is runs/{RUN}/model. Try it:");
    println!("  {mm} read --model runs/{RUN}/model --schema invoice PAGE.png");
    Ok(())
}
