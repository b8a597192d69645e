//! `mm vqa`: answers to questions about images.

use crate::model::{ModelArgs, read_image};
use crate::out::OutFile;
use crate::progress::Bars;
use crate::reading::ReadingArgs;
use crate::{output, table};
use anyhow::{Context, Result, bail, ensure};
use mm_data::QuestionList;
use mm_dist::ProcessGroup;
use mm_image::draw_strip;
use mm_image::image::ImageFormat;
use mm_train::{NoProgress, Progress};
use mm_vqa::{Answer, AnswerMode, Answers, NUM_CANDIDATES, QuestionAnswers, SetAnswerer};
use mm_vqa::{VqaConfig, VqaPipeline, answer_attention};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Answer questions about images.
#[derive(clap::Args)]
#[command(
    mut_arg("resolution", |resolution| resolution.hide(true)), // refused: these models have one
    after_help = "A probability below --abstain leaves the question without an answer (\"unsure\"). A line \
    of --questions is {\"image\": PATH, \"question\": TEXT, \"question_id\": N}. --json prints one object \
    a question: {\"question_id\", \"image\", \"question\", \"answer\", \"answers\": [{\"answer\", \
    \"probability\"}]}. No clinical use is meant.\n\n\
    Examples:\n  \
    mm vqa --model Salesforce/blip-vqa-base photo.jpg \"How many dogs are there?\"\n  \
    mm vqa --model DIR --questions questions.jsonl --images-root photos --json > answers.jsonl"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The image.
    #[arg(required_unless_present = "questions", value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// Questions about it.
    #[arg(required_unless_present = "questions", value_name = "QUESTION")]
    question: Vec<String>,
    /// A file of questions about images, one JSON object a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "question"])]
    questions: Option<PathBuf>,
    /// The folder that the file's images are in [default: the file's own].
    #[arg(long, value_name = "DIR", requires = "questions")]
    images_root: Option<PathBuf>,
    /// Answers to each question, the most probable first.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Rank the answers of this file, one a line, instead of the model's own; for models that decode answers,
    /// as BLIP.
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    answers: Option<PathBuf>,
    /// Generate answers in place of ranking a list.
    #[arg(long)]
    generate: bool,
    /// The answers that are scored whole in a ranking, those with the most probable first tokens.
    #[arg(long, value_name = "N", default_value_t = NUM_CANDIDATES)]
    candidates: usize,
    /// The least probability of an answer that is given.
    #[arg(long, value_name = "P", default_value_t = 0.0, hide_default_value = true)]
    abstain: f32,
    /// Draw which parts of the image the model attends to for its answer, by layer and rolled out over all
    /// layers, as a strip of heat maps in a .png; for one question.
    #[arg(long, value_name = "FILE")]
    attention: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Print one JSON object a question instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let strip = args.attention.as_deref().map(|file| OutFile::open(file, &["png"])).transpose()?;
    ensure!((0.0..=1.0).contains(&args.abstain), "--abstain {}: a probability is from 0 to 1", args.abstain);
    let questions = questions(args)?;
    ensure!(
        strip.is_none() || args.question.len() == 1,
        "--attention draws one question about one image: name IMAGE and a single QUESTION"
    );
    let set = args.reading.set("questions", Arc::new(questions))?;
    let pipeline = args.model.open_vqa()?;
    let answerer = SetAnswerer {
        pipeline: &pipeline,
        mode: mode(args, &pipeline)?,
        top: args.top as usize,
        blind: false,
        blind_baseline: false,
    };
    // Lines on a terminal would run through the bar.
    let bars = Bars::default();
    let is_hidden = args.json && std::io::stdout().is_terminal();
    let progress: &dyn Progress = if is_hidden { &NoProgress } else { &bars };

    let (group, mut rows, mut cut) = (ProcessGroup::alone(), Vec::new(), 0);
    let read = answerer.answer_set(&set, &args.reading.context(&group, progress), |answered| {
        for question in answered {
            cut += usize::from(question.is_cut);
            if args.json {
                print_json(&question, args.abstain).map_err(|error| mm_train::Error::Task(error.into()))?;
            } else {
                rows.extend(table_rows(&question, args.abstain));
            }
        }
        Ok(())
    })?;
    let count = set.len();
    if let Some(first) = read.bad.first().filter(|_| read.bad.len() == count) {
        bail!("not one of {count} images can be read: {}: {}", first.key, first.reason);
    }
    if cut > 0 {
        tracing::warn!(
            "{cut} questions are longer than the {} tokens of the model: their ends are cut",
            pipeline.parts.tokenizer.context_length()
        );
    }
    if !args.json {
        output::print(&table::render_left(3, &["image", "question", "answer", "probability"], &rows))?;
    }
    if let (Some(strip), Some(image), [question]) = (&strip, &args.image, &args.question[..]) {
        draw(&pipeline, image, question, strip)?;
    }
    args.reading.check_bad(&read.bad, count, "the others are answered")
}

fn questions(args: &Args) -> Result<QuestionList> {
    if let Some(file) = &args.questions {
        let beside = || file.parent().map(Path::to_owned).unwrap_or_default();
        return Ok(QuestionList::read(file, &args.images_root.clone().unwrap_or_else(beside))?);
    }
    ensure!(args.question.iter().all(|text| !text.trim().is_empty()), "the question is empty: write one");
    let image = args.image.as_deref().context("name an image and a question")?;
    Ok(QuestionList::of_image(image, &args.question))
}

/// How answers are found.
fn mode(args: &Args, pipeline: &VqaPipeline) -> Result<AnswerMode> {
    let num_candidates = args.candidates;
    ensure!(num_candidates > 0, "--candidates 0: at least one answer must be scored");
    if let Some(file) = &args.answers {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the answers {}", file.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        let answers = Arc::new(Answers::new(lines.collect())?);
        return Ok(AnswerMode::Rank { answers, num_candidates });
    }
    if args.generate {
        return Ok(AnswerMode::Generate(pipeline.parts.generation.clone()));
    }
    Ok(match (&pipeline.config, &pipeline.parts.answers) {
        (VqaConfig::Blip(_), Some(answers)) => {
            AnswerMode::Rank { answers: Arc::clone(answers), num_candidates }
        }
        _ => AnswerMode::Default,
    })
}

/// Writes the heat maps of the answer to one question.
fn draw(pipeline: &VqaPipeline, image: &Path, question: &str, strip: &OutFile) -> Result<()> {
    /// The side of a heat map in pixels.
    const SIDE: u32 = 224;
    let image = read_image(image)?;
    let attention = answer_attention(pipeline, &image, question)?;
    let picture = draw_strip(&pipeline.parts.processor.resize(&image)?, &attention.heat_maps(), SIDE);
    strip.write_image(&picture, ImageFormat::Png)
}

/// The answer that is given: none where its probability is below `least`.
fn given(question: &QuestionAnswers, least: f32) -> Option<&Answer> {
    question.answers.first().filter(|answer| answer.probability >= least)
}

/// Prints the JSON of a question.
fn print_json(question: &QuestionAnswers, least: f32) -> Result<()> {
    /// A line of `--json`.
    #[derive(Serialize)]
    struct Line<'a> {
        question_id: u64,
        image: &'a str,
        question: &'a str,
        /// None where the model is not sure enough.
        answer: Option<&'a str>,
        answers: &'a [Answer],
    }
    let line = Line {
        question_id: question.question.id,
        image: &question.key,
        question: &question.question.text,
        answer: given(question, least).map(|answer| &*answer.answer),
        answers: &question.answers,
    };
    output::print_line(serde_json::to_string(&line)?)
}

/// A row for each answer, the first with the image and the question.
fn table_rows(question: &QuestionAnswers, least: f32) -> Vec<Vec<String>> {
    let row = |(place, answer): (usize, &Answer)| {
        let (image, text) = match place {
            0 => (question.key.clone(), question.question.text.replace(char::is_control, " ")),
            _ => (String::new(), String::new()),
        };
        let unsure = if place == 0 && given(question, least).is_none() { "unsure: " } else { "" };
        let answer_text = format!("{unsure}{}", answer.answer);
        vec![image, text, answer_text, table::percent(f64::from(answer.probability))]
    };
    question.answers.iter().enumerate().map(row).collect()
}
