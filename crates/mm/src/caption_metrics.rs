//! `mm eval caption`: metrics of captions in files, without a model.

use crate::out::OutFile;
use crate::{output, table};
use anyhow::{Context, Result};
use mm_caption::metrics::chair::{ChairCaption, ImageObjects};
use mm_caption::metrics::meteor::MeteorData;
use mm_caption::metrics::{
    CaptionMetrics, CaptionedImage, Captions, DocumentFrequencies, MissingHypotheses, TokenizedCaptions, ptb,
    read_captions,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Measure captions against references: BLEU, ROUGE-L, CIDEr-D, CIDEr, distinct-n and METEOR, with
/// pycocoevalcap's numbers.
#[derive(clap::Args)]
#[command(after_help = "Files are COCO captions, COCO results, a map from ids to captions, or .jsonl with \
                  image_id and caption.\n\nExample: mm eval caption --refs captions_val2014.json --hyps \
                  results.json --subset --df coco-train")]
pub struct Args {
    /// The references.
    #[arg(long, value_name = "FILE")]
    refs: PathBuf,
    /// The captions to measure, one for each image.
    #[arg(long, value_name = "FILE")]
    hyps: PathBuf,
    /// Measure the images of --hyps alone where --refs has more.
    #[arg(long)]
    subset: bool,
    /// Where CIDEr's document frequencies come from: `refs`, the references themselves; `coco-train`, the
    /// captions of COCO train2014 in --coco-data; or a file of --save-df.
    #[arg(long, value_name = "refs|coco-train|FILE", default_value = "refs")]
    df: String,
    /// Write the document frequencies, for --df and for training.
    #[arg(long, value_name = "FILE")]
    save_df: Option<PathBuf>,
    /// The folder of `cargo xtask data coco-captions`.
    #[arg(long, value_name = "DIR", default_value = "data/coco-captions")]
    coco_data: PathBuf,
    /// Also measure METEOR, with meteor-1.5.jar and paraphrase-en.gz in this folder; --coco-data has both.
    #[arg(long, value_name = "DIR")]
    meteor_data: Option<PathBuf>,
    /// Also measure CHAIR on COCO's 80 classes, with the objects of this instances_*.json and those that the
    /// references name; image ids must be COCO's.
    #[arg(long, value_name = "FILE")]
    instances: Option<PathBuf>,
    /// Write the scores of each image, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    per_image: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let open = |file: &Option<PathBuf>, extensions: &[&str]| {
        file.as_deref().map(|file| OutFile::open(file, extensions)).transpose()
    };
    let per_image = open(&args.per_image, &["jsonl"])?;
    let save_df = open(&args.save_df, &["json"])?;
    let meteor = args.meteor_data.as_ref().map(MeteorData::open).transpose()?;
    let missing = if args.subset { MissingHypotheses::Skip } else { MissingHypotheses::Refuse };
    let images = read_captions(&args.refs, &args.hyps, missing)?;
    let tokens = TokenizedCaptions::new(&images);
    let frequencies = Arc::new(match args.df.as_str() {
        "refs" => DocumentFrequencies::from_references(&tokens.references),
        "coco-train" => coco_train(&args.coco_data)?,
        file => DocumentFrequencies::load(Path::new(file))?,
    });
    if let Some(file) = save_df {
        file.write(|to| frequencies.save(to).map_err(std::io::Error::other))?;
    }
    let mut metrics = CaptionMetrics::of_tokens(&images, &tokens, Some(frequencies));
    if let Some(meteor) = meteor {
        let scores = meteor.score(&tokens.hypotheses, &tokens.references)?;
        metrics.add("meteor", scores.corpus, &scores.segments);
    }
    if let Some(instances) = &args.instances {
        add_chair(&mut metrics, &images, instances)?;
    }
    if let Some(file) = per_image {
        file.write_json_lines(&metrics.per_image)?;
    }
    metrics.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if args.json { output::print_line(serde_json::to_string(&metrics)?) } else { print(&metrics) }
}

/// Adds CHAIR with the objects of the file `instances`.
fn add_chair(metrics: &mut CaptionMetrics, images: &[CaptionedImage], instances: &Path) -> Result<()> {
    let mut objects = ImageObjects::default();
    objects.add_instances(instances)?;
    let mut captions = Vec::new();
    for image in images {
        let id: u64 = image.image_id.parse().with_context(|| {
            format!("--instances needs COCO's image ids, which are numbers: {:?} is none", image.image_id)
        })?;
        image.references.iter().for_each(|reference| objects.add_reference(id, reference));
        captions.push((id, image.hypothesis.as_str()));
    }
    let report = objects.chair(&captions)?;
    let of_each =
        |value: &dyn Fn(&ChairCaption) -> f64| report.captions.iter().map(value).collect::<Vec<_>>();
    let has_wrong = |caption: &ChairCaption| f64::from(u8::from(caption.hallucinated().next().is_some()));
    let share =
        |caption: &ChairCaption| caption.hallucinated().count() as f64 / caption.mentions.len().max(1) as f64;
    metrics.add("chair_s", report.chair_s, &of_each(&has_wrong));
    metrics.add("chair_i", report.chair_i, &of_each(&share));
    Ok(())
}

/// The document frequencies of COCO's training captions.
fn coco_train(folder: &Path) -> Result<DocumentFrequencies> {
    let captions = Captions::read(&folder.join("captions_train2014.json"))
        .context("cannot count COCO's captions: run `cargo xtask data coco-captions`, or name --coco-data")?;
    let all: Vec<&str> =
        captions.images().iter().flat_map(|(_, captions)| captions.iter().map(String::as_str)).collect();
    let mut tokens = ptb::tokenize_lines(&all).into_iter();
    let of_image = |(_, captions): &(String, Vec<String>)| tokens.by_ref().take(captions.len()).collect();
    let references: Vec<Vec<String>> = captions.images().iter().map(of_image).collect();
    Ok(DocumentFrequencies::from_references(&references))
}

fn print(metrics: &CaptionMetrics) -> Result<()> {
    let rows: Vec<_> =
        metrics.scores.0.iter().map(|(name, value)| vec![name.clone(), format!("{value:.4}")]).collect();
    let CaptionMetrics { images, references, df_images, .. } = metrics;
    output::print(&format!(
        "{images} images, {references} references; document frequencies of {df_images} images\n\n{}",
        table::render(&["metric", "value"], &rows)
    ))
}
