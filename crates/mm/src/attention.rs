use crate::model::{ModelArgs, read_image};
use anyhow::{Context, Result};
use mm_clip::{heat_map, relevance};
use std::path::PathBuf;

/// Draw which parts of an image speak for a text.
#[derive(clap::Args)]
#[command(after_help = "Example: mm attention --model runs/demo/model photo.png \"red heart\" --out heat.png")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The image.
    image: PathBuf,
    /// The text.
    text: String,
    /// The PNG to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Side of the PNG in pixels.
    #[arg(long, default_value_t = 448, value_parser = clap::value_parser!(u32).range(16..=4096))]
    size: u32,
    /// Print one JSON object, with the map's values, instead of a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let image = read_image(&args.image)?;
    let bundle = args.model.open()?;
    let relevance = relevance(&bundle, &image, &args.text)?;
    let picture = heat_map::draw(&relevance, &bundle.image.processor.resize(&image)?, args.size);
    picture.save(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    if args.json {
        let (similarity, columns) = (relevance.similarity, relevance.columns);
        let values = &relevance.values;
        println!(
            "{}",
            serde_json::json!({ "out": args.out, "similarity": similarity, "columns": columns, "values": values })
        );
    } else {
        println!("cosine {:.3}, heat map in {}", relevance.similarity, args.out.display());
    }
    Ok(())
}
