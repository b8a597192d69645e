//! `mm generate`: images from texts.

use crate::images::{self, ImageArgs};
use anyhow::Result;

/// Make images from texts with a diffusion model.
#[derive(clap::Args)]
#[command(
    mut_arg("resolution", |resolution| resolution.hide(true)), // refused: --size has its place
    mut_arg("model", |model| model.help(MODEL_HELP)),
    after_help = "An image depends on its prompt, seed and settings, not on the others of its batch. The \
    settings are stored in its PNG: mm inspect F.png prints them. Several images get a contact sheet, \
    F-sheet.png. --json prints one object an image: {\"image\": PATH, \"prompt\", \"negative_prompt\", \
    \"seed\", \"model\", \"loras\", \"embeddings\", \"precision\", \"settings\"}, \"flagged\" \
    where a safety checker was applied, and with --attention \"attention\".\n\n\
    Examples:\n  \
    mm generate --model DIR \"a red circle above a blue square\" --out circle.png\n  \
    mm generate --model DIR --prompts prompts.txt --count 4 --steps 20 --scheduler dpmpp_2m --out images"
)]
pub struct Args {
    #[command(flatten)]
    images: ImageArgs,
}

/// The help of `--model` for diffusion models.
pub const MODEL_HELP: &str = "The model: a folder as diffusers saves a pipeline (with model_index.json), a \
    hub name, or a checkpoint of SD 1 or XL in one file";

pub fn run(args: &Args) -> Result<()> {
    images::run(&args.images, &args.images.options(), None)
}
