//! `mm attention`: a heat map of an image for a text.

use crate::model::{ModelArgs, read_image};
use crate::out::OutFile;
use crate::output;
use anyhow::{Context, Result};
use mm_clip::{heat_map, relevance};
use mm_image::image::ImageFormat;
use std::path::PathBuf;

/// Draw the parts of an image that contribute most to its similarity with a text.
#[derive(clap::Args)]
#[command(
    after_help = "Example: mm attention --model runs/demo/model photo.png \"red heart\" --out heat.png"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The image.
    image: PathBuf,
    /// The text.
    text: String,
    /// The picture to write, in .png, .jpg or .webp.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Side of the picture in pixels.
    #[arg(long, default_value_t = 448, value_parser = clap::value_parser!(u32).range(16..=4096))]
    size: u32,
    /// Print one JSON object, with the map's values, instead of a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let out = OutFile::open(&args.out, &["png", "jpg", "jpeg", "webp"])?;
    let format = ImageFormat::from_extension(out.extension()).context("the format is none of an image")?;
    let image = read_image(&args.image)?;
    let pipeline = args.model.open()?;
    let relevance = relevance(&pipeline, &image, &args.text)?;
    let picture = heat_map::draw(&relevance, &pipeline.image.processor.resize(&image)?, args.size);
    out.write_image(&picture, format)?;
    if args.json {
        let (similarity, columns) = (relevance.similarity, relevance.columns);
        let values = &relevance.values;
        let report = serde_json::json!({
            "out": args.out, "similarity": similarity, "columns": columns, "values": values,
        });
        output::print_line(report)
    } else {
        output::print_line(format_args!(
            "cosine {:.3}, heat map in {}",
            relevance.similarity,
            args.out.display()
        ))
    }
}
