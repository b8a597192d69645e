//! `mm caption`: captions of images.

use crate::generation::GenerationArgs;
use crate::model::{ModelArgs, read_image};
use crate::out::OutFile;
use crate::progress::Bars;
use crate::reading::ReadingArgs;
use crate::{output, table};
use anyhow::{Context, Result, bail, ensure};
use mm_caption::{Caption, CaptionPipeline, ImageCaptions, SetCaptioner, word_attention};
use mm_dist::ProcessGroup;
use mm_image::image::ImageFormat;
use mm_image::{WordAttention, draw_strip};
use mm_train::{NoProgress, Progress};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Caption images.
#[derive(clap::Args)]
#[command(
    mut_arg("resolution", |resolution| resolution.hide(true)), // refused: captioners have one
    after_help = "A score is the sum of a caption's log-probabilities over its length to the power of \
    --length-penalty; \"...\" marks a caption that was cut at --max-new-tokens. --json prints one object an \
    image: {\"image\", \"caption\": the best, \"captions\": [{\"caption\", \"score\", \"finished\", \
    \"tokens\": [{\"token\", \"probability\"}]}]}. The lines are a data set: mm data shards --data 'kind = \
    \"jsonl\", path = \"captions.jsonl\", images_root = \".\"' --filter clip_score=0.25 --model CLIP drops \
    images with a caption that does not fit.\n\n\
    Examples:\n  \
    mm caption --model Salesforce/blip-image-captioning-base photo.jpg\n  \
    mm caption --model DIR --num-captions 5 --rerank openai/clip-vit-base-patch32 --json photos"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The images, and folders of images.
    #[arg(required = true, value_name = "IMAGE|FOLDER")]
    images: Vec<PathBuf>,
    /// The text that captions begin with, as "a picture of".
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prompt: String,
    /// Order the captions of an image by its cosine with each of them by this CLIP: a folder or a hub name.
    #[arg(long, value_name = "CLIP")]
    rerank: Option<String>,
    /// Draw which parts of the image the model attends to at each word of the best caption, as a strip of
    /// heat maps in a .png; for one image.
    #[arg(long, value_name = "FILE")]
    attention: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object an image instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    generation: GenerationArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let strip = args.attention.as_deref().map(|file| OutFile::open(file, &["png"])).transpose()?;
    let set = args.reading.image_list(&args.images)?;
    ensure!(
        strip.is_none() || set.len() == 1,
        "--attention draws one image, and there are {}: name a single one",
        set.len()
    );
    let pipeline = args.model.open_captioner()?;
    let generation = args.generation.over(&pipeline.generation)?;
    let clip = args.rerank.as_deref().map(|name| args.model.open_clip(name)).transpose()?;
    let captioner = SetCaptioner {
        pipeline: &pipeline,
        prompt: &args.prompt,
        generation: &generation,
        rerank: clip.as_ref(),
    };
    // Lines on a terminal would run through the bar.
    let bars = Bars::default();
    let is_hidden = args.json && std::io::stdout().is_terminal();
    let progress: &dyn Progress = if is_hidden { &NoProgress } else { &bars };

    let (group, mut rows) = (ProcessGroup::alone(), Vec::new());
    let read = captioner.caption_set(&set, &args.reading.context(&group, progress), |images| {
        for image in images {
            let attention = strip.as_ref().map(|strip| draw(args, &pipeline, &image, strip)).transpose();
            let attention = attention.map_err(|error| mm_train::Error::Task(error.into()))?;
            if args.json {
                print_json(&image, attention).map_err(|error| mm_train::Error::Task(error.into()))?;
            } else {
                rows.extend(table_rows(&image, clip.is_some()));
            }
        }
        Ok(())
    })?;
    let count = set.len();
    if let Some(first) = read.bad.first().filter(|_| read.bad.len() == count) {
        bail!("not one of {count} images can be read: {}: {}", first.key, first.reason);
    }
    if !args.json {
        let header = ["image", "caption", "score", "cosine"];
        let columns = if clip.is_some() { 4 } else { 3 };
        output::print(&table::render_left(2, &header[..columns], &rows))?;
    }
    args.reading.check_bad(&read.bad, count, "the others are captioned")
}

/// Writes the heat maps of the best caption.
fn draw(
    args: &Args,
    pipeline: &CaptionPipeline,
    captioned: &ImageCaptions,
    strip: &OutFile,
) -> Result<Vec<WordAttention>> {
    /// The side of a heat map in pixels.
    const SIDE: u32 = 224;
    let best = captioned.captions.first().context("there is no caption to draw")?;
    let image = read_image(captioned.key.as_ref())?;
    let tokens: Vec<u32> = best.tokens.iter().map(|token| token.id).collect();
    let words = word_attention(pipeline, &image, &args.prompt, &tokens)?;
    let maps: Vec<_> = words.iter().map(WordAttention::heat_map).collect();
    let picture = draw_strip(&pipeline.processor.resize(&image)?, &maps, SIDE);
    strip.write_image(&picture, ImageFormat::Png)?;
    Ok(words)
}

/// Prints the JSON of an image.
fn print_json(image: &ImageCaptions, attention: Option<Vec<WordAttention>>) -> Result<()> {
    /// A line of `--json`.
    #[derive(Serialize)]
    struct Line<'a> {
        image: &'a str,
        /// The best caption, so that the lines are a data set of `kind = "jsonl"`.
        caption: Option<&'a str>,
        captions: &'a [Caption],
        #[serde(skip_serializing_if = "Option::is_none")]
        attention: Option<Vec<WordAttention>>,
    }
    let caption = image.captions.first().map(|caption| caption.caption.as_str());
    let line = Line { image: &image.key, caption, captions: &image.captions, attention };
    output::print_line(serde_json::to_string(&line)?)
}

/// A row for each caption, the first with the name of the image.
fn table_rows(image: &ImageCaptions, has_cosines: bool) -> Vec<Vec<String>> {
    let row = |(place, caption): (usize, &Caption)| {
        let name = if place == 0 { image.key.clone() } else { String::new() };
        let cut = if caption.finished { "" } else { " ..." };
        // A caption of several lines would break the table.
        let text = caption.caption.replace(char::is_control, " ");
        let mut row = vec![name, format!("{text}{cut}"), format!("{:.3}", caption.score)];
        if has_cosines {
            row.push(caption.clip_score.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.3}")));
        }
        row
    };
    image.captions.iter().enumerate().map(row).collect()
}
