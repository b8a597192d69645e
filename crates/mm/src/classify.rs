use crate::model::{ModelArgs, read_image};
use crate::{output, table};
use anyhow::Result;
use mm_clip::{Templates, ZeroShot};
use std::path::PathBuf;

/// Classify images by labels alone, without training.
#[derive(clap::Args)]
#[command(after_help = "Example: mm classify --model runs/demo/model --labels \"red heart,grinning face\" photo.png")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The labels, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    labels: Vec<String>,
    /// File of prompt templates, one a line with {} for the label [default: seven good ones].
    #[arg(long, value_name = "FILE")]
    templates: Option<PathBuf>,
    /// The images.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print one JSON object an image instead of a table.
    #[arg(long)]
    json: bool,
}

/// Images that are embedded, and prompts, at once.
const BATCH_SIZE: usize = 32;

pub fn run(args: &Args) -> Result<()> {
    let templates = args.templates.as_deref().map_or_else(|| Ok(Templates::default()), Templates::read)?;
    let labels: Vec<String> = args.labels.iter().map(|label| label.trim().to_owned()).collect();
    let bundle = args.model.open()?;
    let classifier = ZeroShot::new(&bundle, labels, &templates, BATCH_SIZE)?;
    for paths in args.images.chunks(BATCH_SIZE) {
        let images = paths.iter().map(|path| read_image(path)).collect::<Result<Vec<_>>>()?;
        let probabilities = classifier.probabilities(&bundle, &bundle.image.embed(&images)?);
        for (row, path) in paths.iter().enumerate() {
            let row = Vec::<f32>::try_from(probabilities.get(row as i64).contiguous())?;
            let mut ranked: Vec<(&String, f32)> = classifier.labels().iter().zip(row).collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            if args.json {
                let labels: Vec<_> =
                    ranked.iter().map(|(label, p)| serde_json::json!({ "label": label, "probability": p })).collect();
                output::print(&format!("{}\n", serde_json::json!({ "image": path, "labels": labels })))?;
            } else {
                let rows: Vec<Vec<String>> =
                    ranked.iter().map(|(label, p)| vec![(*label).clone(), table::percent(f64::from(*p))]).collect();
                let table = table::render(&["label", "probability"], &rows);
                output::print(&format!("{}\n{table}\n", path.display()))?;
            }
        }
    }
    Ok(())
}
