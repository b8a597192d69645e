//! `mm read`: documents of pages.

mod overlay;
mod pages;
mod pdf;

use crate::model::ModelArgs;
use crate::out::{OutFile, try_folder};
use crate::progress::Bars;
use crate::reading::ReadingArgs;
use crate::{output, table};
use anyhow::{Result, bail, ensure};
use mm_dist::ProcessGroup;
use mm_text::generate::GenerationConfig;
use mm_train::{NoProgress, Progress};
use mm_vqa::document::{DocumentPipeline, DocumentReading, PageReading, SetReader};
use pages::PageList;
use serde::Serialize;
use serde_json::value::to_raw_value;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

/// Read the fields of documents: invoices, receipts, forms.
#[derive(clap::Args)]
#[command(
    mut_arg("resolution", |resolution| resolution.hide(true)), // refused: these models have one
    mut_arg("fast_decode", |fast| fast.hide(true)), // refused: small print needs every pixel
    mut_arg("batch_size", |size| size.default_value("4").visible_alias("batch")),
    after_help = "A field's confidence is the product of the probabilities of its tokens. Its place, from \
    the model's cross-attention, is left, top, right and bottom in pixels of the page. --json prints one \
    object a page: {\"page\", \"json\": the document, \"fields\": [{\"path\", \"text\", \"confidence\", \
    \"place\"}], \"finished\": false where it was cut at --max-new-tokens, \"unclosed\": tags without an \
    end, \"left_out\": fields below --min-confidence}. Pages of a PDF are named FILE.pdf#1; pdftoppm of \
    poppler-utils draws them.\n\n\
    Examples:\n  \
    mm read --model DIR --schema invoice invoice.png\n  \
    mm read --model naver-clova-ix/donut-base-finetuned-cord-v2 --prompt \"<s_cord-v2>\" --json receipts\n  \
    mm read --model DIR --min-confidence 0.5 --jsonl read.jsonl --overlay seen scan.pdf"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The pages: images, PDFs, and folders of images.
    #[arg(required = true, value_name = "PAGE|FOLDER")]
    pages: Vec<PathBuf>,
    /// What the pages are, as the model was trained: "invoice" [default: the model's own].
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    schema: Option<String>,
    /// The tokens that the model begins with, where they are more than a schema's.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Leave out fields of a lower confidence, and say how many these are.
    #[arg(long, value_name = "P", default_value_t = 0.0, hide_default_value = true)]
    min_confidence: f64,
    /// Write one JSON object a page to this .jsonl.
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// Draw each page with the places of its fields into this folder, as a .png.
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    /// Beams of the search [default: the model's]; 1 is greedy.
    #[arg(long, value_name = "N")]
    num_beams: Option<usize>,
    /// The largest number of tokens of a document [default: the model's].
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Dots an inch at which pages of a PDF are drawn.
    #[arg(long, value_name = "N", default_value_t = 150)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=1200))]
    pdf_dpi: u32,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object a page instead of a table.
    #[arg(long)]
    json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    page: &'a str,
    #[serde(flatten)]
    reading: &'a DocumentReading,
    left_out: usize,
}

/// What is said once about all pages.
#[derive(Default)]
struct Counts {
    cut: usize,
    unclosed: usize,
    left_out: usize,
}

pub fn run(args: &Args) -> Result<()> {
    let least = args.min_confidence;
    ensure!((0.0..=1.0).contains(&least), "--min-confidence {least}: a probability is from 0 to 1");
    let jsonl = args.jsonl.as_deref().map(|file| OutFile::open(file, &["jsonl"])).transpose()?;
    args.overlay.as_deref().map_or(Ok(()), try_folder)?;
    let pages = Arc::new(PageList::open(&args.pages, args.pdf_dpi)?);
    let set = args.reading.set("pages", pages.clone())?;
    ensure!(
        !set.fast_decode,
        "--fast-decode is not for documents: small print needs every pixel; leave it out"
    );
    let pipeline = args.model.open_document()?;
    let prompt = prompt(args, &pipeline)?;
    let generation = generation(args, &pipeline.generation)?;
    let reader =
        SetReader { pipeline: &pipeline, prompt: &prompt, generation: &generation, has_places: true };
    // Lines on a terminal would run through the bar.
    let bars = Bars::default();
    let is_hidden = args.json && std::io::stdout().is_terminal();
    let progress: &dyn Progress = if is_hidden { &NoProgress } else { &bars };

    let (group, mut rows, mut lines, mut counts) =
        (ProcessGroup::alone(), Vec::new(), Vec::new(), Counts::default());
    let mut take = |page: &mut PageReading| -> Result<()> {
        let left_out = counts.add(page, least);
        let line = Line { page: &page.key, reading: &page.reading, left_out };
        if args.json {
            output::print_line(serde_json::to_string(&line)?)?;
        } else {
            rows.extend(table_rows(page));
        }
        if jsonl.is_some() {
            lines.push(to_raw_value(&line)?);
        }
        let drawn = args.overlay.as_deref().map(|folder| overlay::write(folder, &pages, page));
        drawn.unwrap_or(Ok(()))
    };
    let read = reader.read_set(&set, &args.reading.context(&group, progress), |mut read| {
        read.iter_mut().try_for_each(&mut take).map_err(|error| mm_train::Error::Task(error.into()))
    })?;
    let count = set.len();
    if let Some(first) = read.bad.first().filter(|_| read.bad.len() == count) {
        bail!("not one of {count} pages can be read: {}: {}", first.key, first.reason);
    }
    if let Some(jsonl) = &jsonl {
        jsonl.write_json_lines(&lines)?;
    }
    if !args.json {
        output::print(&table::render_left(3, &["page", "field", "text", "confidence", "place"], &rows))?;
    }
    counts.tell(count - read.bad.len(), &generation, least);
    args.reading.check_bad(&read.bad, count, "the others are read")
}

/// The tokens that documents begin with.
fn prompt(args: &Args, pipeline: &DocumentPipeline) -> Result<Vec<u32>> {
    let of_schema = args.schema.as_deref().map(|schema| pipeline.schema_prompt(schema)).transpose()?;
    Ok(pipeline.prompt_tokens(of_schema.as_deref().or(args.prompt.as_deref()))?)
}

/// The model's `defaults` with what is given in their place.
fn generation(args: &Args, defaults: &GenerationConfig) -> Result<GenerationConfig> {
    let generation = GenerationConfig {
        num_beams: args.num_beams.unwrap_or(defaults.num_beams),
        num_return_sequences: 1,
        max_new_tokens: args.max_new_tokens.unwrap_or(defaults.max_new_tokens),
        ..defaults.clone()
    };
    generation.validate()?;
    Ok(generation)
}

impl Counts {
    /// Counts a page, of which fields below `least` are left out, and gives their number.
    fn add(&mut self, page: &mut PageReading, least: f64) -> usize {
        let left_out = if least > 0.0 { page.reading.drop_below(least) } else { 0 };
        self.cut += usize::from(!page.reading.finished);
        self.unclosed += usize::from(page.reading.unclosed > 0);
        self.left_out += left_out;
        left_out
    }

    /// Says what `pages` lack.
    fn tell(&self, pages: usize, generation: &GenerationConfig, least: f64) {
        let Self { cut, unclosed, left_out } = self;
        if *cut > 0 {
            let limit = generation.max_new_tokens;
            tracing::warn!("{cut} of {pages} documents have no end within --max-new-tokens {limit}");
        }
        if *unclosed > 0 {
            tracing::warn!(
                "{unclosed} of {pages} documents have tags that never close; their content is lost"
            );
        }
        if *left_out > 0 {
            tracing::info!("{left_out} fields below --min-confidence {least} are left out");
        }
    }
}

/// A row for each field, the first with the name of the page.
fn table_rows(page: &PageReading) -> Vec<Vec<String>> {
    let blank = String::new;
    if page.reading.is_empty() {
        return vec![vec![page.key.clone(), blank(), "nothing found".to_owned(), blank(), blank()]];
    }
    let rows = page.reading.fields.iter().enumerate().map(|(index, field)| {
        let name = if index == 0 { page.key.clone() } else { blank() };
        let place = field.place.map_or_else(blank, |place| place.map(|side| format!("{side:.0}")).join(" "));
        // A text of several lines would break the table.
        let text = field.text.replace(char::is_control, " ");
        vec![name, field.path.clone(), text, table::percent(field.confidence), place]
    });
    rows.collect()
}
