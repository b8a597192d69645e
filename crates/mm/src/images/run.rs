//! The run from prompts to files, batch by batch.

use super::contact_sheet::{self, Cell, thumbnail, wrapped};
use super::files::ImageFiles;
use super::options::ImageArgs;
use super::preview::Preview;
use super::settings::{in_short, scheduler_in_short};
use crate::out::OutFile;
use crate::progress::Bars;
use crate::{one_line, output, table};
use anyhow::{Context, Result, anyhow, ensure};
use mm_diffusion::{
    DiffusionPipeline, Edit, EditRecord, GenerateOptions, GeneratedImage, ImageRecord, ImageRequest,
    StepProgress,
};
use mm_image::image::ImageFormat;
use mm_image::{RgbImage, WordAttention, draw_strip, write_png_with_text};
use mm_train::{NoProgress, Progress};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

/// Images on a contact sheet; more would be too small to see, or the sheet too large to open.
const ON_SHEET: usize = 100;

/// An edit, and the names of its files.
pub struct Source {
    pub edit: Edit,
    pub record: EditRecord,
}

/// Makes the images that `args` ask for and writes them, each batch before the next.
pub fn run(args: &ImageArgs, options: &GenerateOptions, source: Option<&Source>) -> Result<()> {
    let requests = args.prompts.requests()?;
    let strip = args.attention.as_deref().map(|file| OutFile::open(file, &["png"])).transpose()?;
    ensure!(
        strip.is_none() || requests.len() == 1,
        "--attention draws one image, and {} are to be made: give one prompt and --count 1",
        requests.len()
    );
    let files = ImageFiles::open(&args.out, requests.len(), args.retry_dir.as_deref())?;
    let pipeline = args.open()?;
    let edit = source.map(|source| &source.edit);
    let settings = pipeline.settings(options, edit)?;
    warn_of(args, &pipeline, settings.guidance_scale, &requests);
    output::note(in_short(&settings));
    output::note(scheduler_in_short(&settings.scheduler));
    let batch = args.batch(settings.width, settings.height);
    let edit_record = source.map(|source| source.record.clone());
    let record = ImageRecord { edit: edit_record, ..args.record(&pipeline, settings) };
    let mut run =
        Run { args, files, strip, record, cells: Vec::new(), rows: Vec::new(), flagged: Vec::new() };
    let start = Instant::now();
    let made = run.make(&pipeline, &requests, batch, options, edit);
    run.warn_of_flagged();
    let made = made.and_then(|()| run.write_sheet(requests.len()));
    let sheet = made.map_err(|error| anyhow!("{}; {}", one_line(&error), run.files.saved()))?;
    let (count, seconds) = (requests.len(), start.elapsed().as_secs_f64());
    let each = if count > 1 { format!(", {:.1} s each", seconds / count as f64) } else { String::new() };
    if !args.json {
        output::print(&table::render_left(3, &["image", "seed", "prompt"], &run.rows))?;
    }
    output::note(format_args!("{count} made in {seconds:.1} s{each}{sheet}"));
    Ok(())
}

/// Says what a user might take for granted.
fn warn_of(args: &ImageArgs, pipeline: &DiffusionPipeline, guidance_scale: f64, requests: &[ImageRequest]) {
    match (pipeline.has_safety_checker(), args.no_safety_checker) {
        (true, true) => tracing::warn!("the safety checker is left out: images are not filtered"),
        (true, false) => {}
        (false, _) => tracing::warn!("the model has no safety checker: images are not filtered"),
    }
    for (_, token) in pipeline.embeddings() {
        let has_token = |request: &ImageRequest| {
            let texts = [Some(&request.prompt), request.negative_prompt.as_ref()];
            texts.into_iter().flatten().any(|text| text.contains(token.as_str()))
        };
        if !requests.iter().any(has_token) {
            tracing::warn!("the embedding {token} does nothing: no prompt has this token");
        }
    }
    let has_negative =
        requests.iter().any(|request| request.negative_prompt.as_ref().is_some_and(|text| !text.is_empty()));
    if has_negative && guidance_scale <= 1.0 {
        tracing::warn!(
            "the negative prompt does nothing: guidance {guidance_scale} is off, it is on above 1"
        );
    }
}

/// A run in progress.
struct Run<'a> {
    args: &'a ImageArgs,
    files: ImageFiles,
    /// Where the attention to the words is drawn.
    strip: Option<OutFile>,
    /// What all images have in common.
    record: ImageRecord,
    /// The contact sheet's.
    cells: Vec<Cell>,
    /// The table's.
    rows: Vec<Vec<String>>,
    /// The seeds of images that the safety checker found unsafe.
    flagged: Vec<u64>,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    image: &'a Path,
    #[serde(flatten)]
    record: &'a ImageRecord,
    /// The attention of the image to each word of its prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    attention: Option<&'a [WordAttention]>,
}

impl Run<'_> {
    /// Makes and saves all images.
    fn make(
        &mut self,
        pipeline: &DiffusionPipeline,
        requests: &[ImageRequest],
        batch: usize,
        options: &GenerateOptions,
        edit: Option<&Edit>,
    ) -> Result<()> {
        // Lines on a terminal would run through the bar.
        let bars = Bars::default();
        let is_hidden = self.args.json && std::io::stdout().is_terminal();
        let progress: &dyn Progress = if is_hidden { &NoProgress } else { &bars };
        let every = self.args.preview_every;
        let mut preview = every.map(|every| Preview::new(pipeline, self.files.preview(), every as usize));
        let batches = requests.len().div_ceil(batch) as u64;
        for (number, part) in (0..).zip(requests.chunks(batch)) {
            let mut on_step = |step: &StepProgress| {
                if let Some(preview) = &mut preview {
                    preview.step(step);
                }
                let (call, calls) = (step.call as u64, step.calls as u64);
                progress.report("steps", number * calls + call, batches * calls);
                Ok(())
            };
            if self.strip.is_some() {
                let (image, words) =
                    pipeline.generate_with_attention(&part[0], edit, options, &mut on_step)?;
                self.save(0, &part[0], &image, Some(&words))?;
                self.draw_attention(&image.picture, &words)?;
                continue;
            }
            let images = pipeline.generate(part, edit, options, &mut on_step)?;
            for (index, (request, image)) in part.iter().zip(images).enumerate() {
                self.save(number as usize * batch + index, request, &image, None)?;
            }
        }
        Ok(())
    }

    /// Writes an image, and prints it or keeps it for the table and the contact sheet.
    fn save(
        &mut self,
        index: usize,
        request: &ImageRequest,
        image: &GeneratedImage,
        attention: Option<&[WordAttention]>,
    ) -> Result<()> {
        let ImageRequest { prompt, negative_prompt, seed } = request.clone();
        let GeneratedImage { picture, is_flagged } = image;
        if *is_flagged == Some(true) {
            self.flagged.push(seed);
        }
        let record =
            ImageRecord { prompt, negative_prompt, seed, flagged: *is_flagged, ..self.record.clone() };
        let texts = record.texts();
        let texts: Vec<(&str, &str)> =
            texts.iter().map(|(keyword, text)| (*keyword, text.as_str())).collect();
        let saved = self.files.save(&self.files.image(index), &write_png_with_text(picture, &texts)?)?;
        if index < ON_SHEET {
            let picture = thumbnail(picture);
            let mut lines = wrapped(&request.prompt, picture.width(), 2);
            lines.push(format!("seed {seed}"));
            self.cells.push(Cell { picture, lines });
        }
        if self.args.json {
            return output::print_line(serde_json::to_string(&Line {
                image: &saved,
                record: &record,
                attention,
            })?);
        }
        let prompt = table::shortened(&request.prompt);
        self.rows.push(vec![saved.display().to_string(), seed.to_string(), prompt]);
        Ok(())
    }

    /// Writes the heat maps of the words.
    fn draw_attention(&self, picture: &RgbImage, words: &[WordAttention]) -> Result<()> {
        /// The side of a heat map in pixels.
        const SIDE: u32 = 224;
        let Some(strip) = &self.strip else { return Ok(()) };
        let maps: Vec<_> = words.iter().map(WordAttention::heat_map).collect();
        strip.write_image(&draw_strip(picture, &maps, SIDE), ImageFormat::Png)
    }

    /// Names the images that are black.
    fn warn_of_flagged(&self) {
        if !self.flagged.is_empty() {
            let seeds: Vec<String> = self.flagged.iter().map(u64::to_string).collect();
            tracing::warn!(
                "the safety checker found {} of the images unsafe: they are black (seed {})",
                seeds.len(),
                seeds.join(", ")
            );
        }
    }

    /// Writes the contact sheet of several images; says where it is.
    fn write_sheet(&mut self, count: usize) -> Result<String> {
        if count < 2 {
            return Ok(String::new());
        }
        let each = self.args.prompts.count as usize;
        // A prompt a row, where its images fit into one.
        let columns = match each {
            2..=8 if each < count => each,
            _ => ((self.cells.len() as f64).sqrt().ceil() as usize).min(10),
        };
        let sheet = contact_sheet::draw(&self.cells, columns);
        let png = write_png_with_text(&sheet, &[])?;
        let saved = self.files.save(&self.files.sheet(), &png).context("the contact sheet is missing")?;
        let part = if count > ON_SHEET { format!(" of the first {ON_SHEET}") } else { String::new() };
        Ok(format!(", contact sheet{part} in {}", saved.display()))
    }
}
