//! `cargo xtask demo`: one `cargo xtask run` of a configuration, with a name of its own and, for CLIP and
//! VQA, a length of its own. That of diffusion has its judge trained first, that of documents a model that
//! never sees a page; that of search serves the CLIP.

use std::fs;
use std::path::Path;

mod documents;
mod rlhf;
mod search;

use anyhow::{Context, Result, ensure};

use crate::ranks;
use crate::run::execute;
use crate::workspace::Workspace;

/// Options of `demo`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --full --seed 1 --force\n  \
                        cargo xtask demo caption\n  cargo xtask demo vqa\n  \
                        cargo xtask demo documents\n  cargo xtask demo diffusion\n  \
                        cargo xtask demo rlhf\n  cargo xtask demo search")]
pub struct Args {
    /// What to train
    #[arg(value_enum, default_value = "clip")]
    name: Name,
    /// Train for longer: the CLIP for 4,300 steps instead of 1,800, VQA for 4,500 instead of 1,500
    #[arg(long)]
    full: bool,
    /// Another seed than the configuration's
    #[arg(long)]
    seed: Option<u64>,
    /// Remove an earlier demo and start again
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Name {
    /// A small CLIP on emoji
    Clip,
    /// A small captioner on drawn shapes
    Caption,
    /// A small model that answers questions about drawn shapes
    Vqa,
    /// A small model that reads invoices, and one beside it that never sees the page
    Documents,
    /// A small model that draws shapes from prompts and edits them by instructions
    Diffusion,
    /// The same, left weak and then moved toward a judge's reward by each method
    Rlhf,
    /// The emoji on a web page, found by the CLIP, which is trained first where it is missing
    Search,
}

/// A demo: a configuration, and what to do with its run.
struct Demo {
    config: &'static str,
    /// A configuration that is trained before, under its own name.
    before: Option<&'static str>,
    /// The run's name in `runs/`.
    run: &'static str,
    /// Steps, and steps of `--full`; none: the configuration's.
    steps: Option<[u32; 2]>,
    /// What the page shows.
    page: &'static str,
    /// The command that uses the model, and its arguments behind the model.
    usage: [&'static str; 2],
}

const CLIP: Demo = Demo {
    config: "configs/clip/emoji-vit-tiny.toml",
    before: None,
    run: "demo",
    // 1,800 give most of what the data has to give.
    steps: Some([1_800, 4_300]),
    page: "the loss, the best images of held-out texts, and heat maps",
    usage: ["classify", "--labels \"a cat,a dog\" IMAGE.png"],
};

const CAPTION: Demo = Demo {
    config: "configs/caption/shapes.toml",
    before: None,
    run: "demo-caption",
    steps: None,
    page: "the loss, and captions of held-out images beside their references",
    usage: ["caption", "IMAGE.png"],
};

const VQA: Demo = Demo {
    config: "configs/vqa/shapes.toml",
    before: None,
    run: "demo-vqa",
    // About fifteen minutes on two cores, and an hour.
    steps: Some([1_500, 4_500]),
    page: "accuracies with blind ones beside them, answers with heat maps, the risk-coverage curve",
    usage: ["vqa", "IMAGE.png \"How many red shapes are there?\""],
};

const DIFFUSION: Demo = Demo {
    config: "configs/diffusion/shapes-pixel.toml",
    before: Some("configs/diffusion/shapes-judge.toml"),
    run: "demo-diffusion",
    steps: None,
    page: "the loss, images of prompts that training never had, and what the judge says of them",
    usage: ["generate", "\"two red circles\" --out circles.png"],
};

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    match args.name {
        Name::Clip => train(workspace, &CLIP, "cargo xtask demo --force", args),
        Name::Caption => train(workspace, &CAPTION, "cargo xtask demo caption --force", args),
        Name::Vqa => train(workspace, &VQA, "cargo xtask demo vqa --force", args),
        Name::Documents => {
            ensure!(!args.full, "--full is for clip and vqa");
            documents::run(workspace, args.seed, args.force)
        }
        Name::Diffusion => train(workspace, &DIFFUSION, "cargo xtask demo diffusion --force", args),
        Name::Rlhf => {
            ensure!(!args.full, "--full is for clip and vqa");
            rlhf::run(workspace, args.seed, args.force)
        }
        Name::Search => {
            if args.force || !search::has_model(workspace) {
                train(workspace, &CLIP, "cargo xtask demo --force", args)?;
            }
            search::run(workspace)
        }
    }
}

/// Trains and evaluates `demo`; `again` is the command that starts it again.
fn train(workspace: &Workspace, demo: &Demo, again: &str, args: &Args) -> Result<()> {
    let steps = demo.steps.map(|[steps, full]| if args.full { full } else { steps });
    ensure!(
        steps.is_some() || !args.full,
        "--full is for clip and vqa: the length of this one is in {}",
        demo.config
    );
    let run = format!("runs/{}", demo.run);
    let folder = workspace.path(&run);
    if args.force && folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {run}"))?;
    }
    ensure!(
        !(folder.join("model").exists() && folder.join("report.html").exists()),
        "{run} holds a finished demo: look at {run}/report.html, or start again with `{again}`"
    );
    let mut overrides = vec![format!("run.name={}", demo.run)];
    overrides.extend(steps.map(|steps| format!("train.steps={steps}")));
    overrides.extend(args.seed.map(|seed| format!("run.seed={seed}")));
    let root = workspace.path("");
    if let Some(before) = demo.before {
        execute(workspace, &root, Path::new(before), &[], &ranks::Options::default())?;
    }
    let finished = execute(workspace, &root, Path::new(demo.config), &overrides, &ranks::Options::default())?;
    println!("\nLook at {run}/report.html: {}.", demo.page);
    println!("The trained model is {run}/model, in Hugging Face form. Try it:");
    let mm = workspace.show(&finished.mm);
    let [verb, arguments] = demo.usage;
    println!("  {mm} {verb} --model {run}/model {arguments}");
    Ok(())
}
