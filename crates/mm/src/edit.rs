//! `mm edit`: images from images and texts.

use crate::generate::MODEL_HELP;
use crate::images::{self, ImageArgs, Source};
use crate::model::read_image;
use anyhow::Result;
use mm_diffusion::{Edit, EditKind, EditRecord, GenerateOptions};
use std::path::PathBuf;

/// Change an image by a text with a diffusion model.
#[derive(clap::Args)]
#[command(
    mut_arg("resolution", |resolution| resolution.hide(true)), // refused: --size has its place
    mut_arg("model", |model| model.help(MODEL_HELP)),
    after_help = "--strength alone adds noise to the image and removes it under the prompt. --mask repaints \
    a part, with a model that reads masks or any other. With neither, the prompt is an instruction, for a \
    model that was trained for them (InstructPix2Pix). The rest is as in mm generate.\n\n\
    Examples:\n  \
    mm edit --model DIR photo.png \"a watercolor of a harbour\" --strength 0.6 --out harbour.png\n  \
    mm edit --model DIR photo.png \"a red boat\" --mask mask.png --out boat.png\n  \
    mm edit --model DIR photo.png \"make it winter\" --image-guidance 1.5 --out winter.png"
)]
pub struct Args {
    /// The image.
    image: PathBuf,
    /// How far the image is changed, above 0 to 1: the share of the steps that run [with --mask: 1].
    #[arg(long, value_name = "SHARE")]
    strength: Option<f64>,
    /// Run all of --steps, on a grid that is finer by the strength.
    #[arg(long, requires = "strength", conflicts_with = "mask")]
    exact_steps: bool,
    /// An image of the same size, white where the image is painted anew.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// How much the image counts in an edit by an instruction; on from 1.
    #[arg(long, value_name = "SCALE", default_value_t = 1.5, conflicts_with_all = ["strength", "mask"])]
    image_guidance: f64,
    #[command(flatten)]
    images: ImageArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let image = read_image(&args.image)?;
    let kind = match (&args.mask, args.strength) {
        (Some(mask), strength) => {
            EditKind::Inpaint { mask: read_image(mask)?, strength: strength.unwrap_or(1.0) }
        }
        (None, Some(strength)) => EditKind::ImageToImage { strength, exact_steps: args.exact_steps },
        (None, None) => EditKind::Instruct,
    };
    let record = EditRecord {
        image: images::file_name(&args.image),
        mask: args.mask.as_deref().map(images::file_name),
        exact_steps: args.exact_steps,
    };
    let source = Source { edit: Edit { image, kind }, record };
    let options = GenerateOptions { image_guidance_scale: args.image_guidance, ..args.images.options() };
    images::run(&args.images, &options, Some(&source))
}
