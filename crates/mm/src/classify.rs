//! `mm classify`: zero-shot classification.

use crate::model::{ModelArgs, read_image};
use crate::reading::ReadingArgs;
use crate::{labels, output, table};
use anyhow::{Result, bail};
use mm_clip::{ClipPipeline, Templates, ZeroShot, check_rows};
use mm_data::{BadSample, Fault};
use mm_image::RgbImage;
use std::path::PathBuf;

/// Classify images by labels, without training (zero-shot).
#[derive(clap::Args)]
#[command(
    after_help = "A probability is what the model's loss makes of it. CLIP's (softmax): the label's share \
    among those given; they add up to \
                  100 %, and one label alone always has all. SigLIP's (sigmoid): whether the label fits, \
                  each for itself; all may be low. \
                  --json names the kind.\n\n\
                  Example: mm classify --model runs/demo/model --labels \"red heart,grinning face\" photo.png"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The labels, separated by commas; a label with a comma goes in double quotes: '"red, green",blue'.
    #[arg(long, required_unless_present = "labels_file", conflicts_with = "labels_file")]
    labels: Option<String>,
    /// File with one label a line; or .json: a list, or ImageNet's map of classes ({"0": ["n01440764",
    /// "tench"], ...} or {"n01440764": "tench", ...}).
    #[arg(long, value_name = "FILE")]
    labels_file: Option<PathBuf>,
    /// File of prompt templates, one a line with {} for the label [default: seven of OpenAI's].
    #[arg(long, value_name = "FILE")]
    templates: Option<PathBuf>,
    /// The images.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object an image instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let templates = args.templates.as_deref().map_or_else(|| Ok(Templates::default()), Templates::read)?;
    let labels = match (&args.labels, &args.labels_file) {
        (Some(line), _) => labels::from_line(line)?,
        (None, Some(file)) => labels::from_file(file)?,
        (None, None) => bail!("give --labels or --labels-file"),
    };
    let pipeline = args.model.open()?;
    let classifier = ZeroShot::new(&pipeline, labels, &templates, args.reading.batch_size())?;
    let mut bad = Vec::new();
    for paths in args.images.chunks(args.reading.batch_size()) {
        let mut images = Vec::new();
        for path in paths {
            match read_image(path) {
                Ok(image) => images.push((path, image)),
                Err(error) => {
                    let (source, key, reason) =
                        (String::new(), path.display().to_string(), error.root_cause().to_string());
                    tracing::warn!("left out: {key}: {reason}");
                    bad.push(BadSample { source, key, fault: Fault::Image, reason });
                }
            }
        }
        if !images.is_empty() {
            classify(args, &pipeline, &classifier, images)?;
        }
    }
    let count = args.images.len();
    if let Some(first) = bad.first().filter(|_| bad.len() == count) {
        bail!("not one of {count} images can be read: {}: {}", first.key, first.reason);
    }
    args.reading.check_bad(&bad, count, "the others are classified")
}

/// Prints the probabilities of the labels for each of `images`.
fn classify(
    args: &Args,
    pipeline: &ClipPipeline,
    classifier: &ZeroShot,
    images: Vec<(&PathBuf, RgbImage)>,
) -> Result<()> {
    let (paths, images): (Vec<_>, Vec<_>) = images.into_iter().unzip();
    let rows = pipeline.image.embed(&images)?;
    check_rows(&rows, |row| paths[row].display().to_string())?;
    let probabilities = classifier.probabilities(pipeline, &rows);
    for (row, path) in paths.into_iter().enumerate() {
        let row = Vec::<f32>::try_from(probabilities.get(row as i64).contiguous())?;
        let mut ranked: Vec<(&String, f32)> = classifier.labels().iter().zip(row).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        if args.json {
            let labels: Vec<_> = ranked
                .iter()
                .map(|(label, p)| serde_json::json!({ "label": label, "probability": p }))
                .collect();
            let kind = pipeline.head.probability();
            let report = serde_json::json!({ "image": path, "probabilities": kind, "labels": labels });
            output::print(&format!("{report}\n"))?;
        } else {
            let rows: Vec<Vec<String>> = ranked
                .iter()
                .map(|(label, p)| vec![(*label).clone(), table::percent(f64::from(*p))])
                .collect();
            let table = table::render(&["label", "probability"], &rows);
            output::print(&format!("{}\n{table}\n", path.display()))?;
        }
    }
    Ok(())
}
