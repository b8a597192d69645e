//! `mm chat`: conversations with vision-language models and text models.

mod items;
mod model;

use crate::generation::GenerationArgs;
use crate::model::{ModelArgs, read_image};
use crate::{output, table};
use anyhow::{Context, Result, bail, ensure};
use mm_image::RgbImage;
use mm_text::generate::GenerationConfig;
use mm_text::{ChatMessage, ChatPart};
use model::{Answer, ChatModel};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Ask a vision-language model about images, or a text model.
#[derive(clap::Args)]
#[command(
    mut_arg("resolution", |resolution| resolution.hide(true)), // refused: these models have one
    mut_arg("num_captions", |count| count.help(
        "Answers to each prompt: the N best of a search of at least N beams, or N drawn ones with --sample"
    )),
    mut_arg("max_new_tokens", |count| count.help(
        "The largest number of new tokens [default: the model's, or 256 where its files state none]"
    )),
    after_help = "The answer is printed while it is generated, unless there are several or --num-beams; \
    \"...\" marks one that was cut at --max-new-tokens. A line of --jsonl is {\"images\": [PATH], \
    \"prompt\": TEXT, \"system\": TEXT}; its line of --out has the same keys, any others that it had, \
    and those of --json: {\"answer\", \"finished\", \"answers\": [{\"answer\", \"score\", \
    \"finished\", \"tokens\": [{\"token\", \"probability\"}]}]}.\n\n\
    Examples:\n  \
    mm chat --model HuggingFaceTB/SmolVLM-256M-Instruct photo.jpg \"What is on the table?\"\n  \
    mm chat --model DIR a.png b.png \"What differs?\" --then \"Which one is older?\"\n  \
    mm chat --model DIR --jsonl prompts.jsonl --out answers.jsonl"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The images, and the prompt last.
    #[arg(required_unless_present = "jsonl", value_name = "IMAGE... PROMPT")]
    inputs: Vec<String>,
    /// A further prompt after the answer; may be repeated.
    #[arg(long, value_name = "PROMPT", conflicts_with = "jsonl")]
    then: Vec<String>,
    /// The system message; lines of --jsonl may have their own.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Give the model the prompt as it is, without its chat template; the model's image token stands in it
    /// for each image.
    #[arg(long, conflicts_with_all = ["system", "then"])]
    plain: bool,
    /// Cut large images into tiles, for small text in them, if the model can: up to 17 times the work.
    #[arg(long)]
    split_images: bool,
    /// A file of prompts, one JSON object a line.
    #[arg(long, value_name = "FILE", conflicts_with = "inputs")]
    jsonl: Option<PathBuf>,
    /// The folder that the file's images are in [default: the file's own].
    #[arg(long, value_name = "DIR", requires = "jsonl")]
    images_root: Option<PathBuf>,
    /// The answers to the file's prompts, one JSON object a line [default: standard output].
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    out: Option<PathBuf>,
    /// Prompts of the file that go through the model at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Prompts of the file whose images may be unreadable: they are reported and their lines have an error.
    /// With more, the command answers the others and exits with code 1.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_bad_samples: usize,
    /// Print one JSON object a prompt instead of the answer.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    generation: GenerationArgs,
}

/// The largest number of new tokens where neither the arguments nor the model's files state one.
const NEW_TOKENS: usize = 256;

pub fn run(args: &Args) -> Result<()> {
    if let Some(file) = &args.jsonl {
        return items::run(args, file);
    }
    let Some((prompt, images)) = args.inputs.split_last() else { bail!("name a prompt") };
    ensure!(!prompt.trim().is_empty(), "the prompt is empty: write one");
    ensure!(
        !Path::new(prompt).is_file(),
        "the last argument is the prompt, and {prompt} is a file: write a prompt behind it"
    );
    ensure!(
        args.then.iter().all(|prompt| !prompt.trim().is_empty()),
        "a prompt of --then is empty: write one"
    );
    let decoded = images.iter().map(|image| read_image(image.as_ref())).collect::<Result<Vec<_>>>()?;
    let model = ChatModel::open(&args.model, args.split_images)?;
    let config = generation(args, &model)?;
    let inputs = ImageInputs { names: images, images: &decoded };
    if args.plain {
        let prompt = model.plain_prompt(prompt, &decoded)?;
        let answers = answer(args, &model, &config, prompt)?;
        return if args.json { print_json(&args.inputs, images, &answers) } else { Ok(()) };
    }
    converse(args, &model, &config, prompt, &inputs)
}

/// The images of a prompt.
struct ImageInputs<'a> {
    names: &'a [String],
    images: &'a [RgbImage],
}

/// Answers the prompts one after the other, each with the conversation before it.
fn converse(
    args: &Args,
    model: &ChatModel,
    config: &GenerationConfig,
    prompt: &str,
    inputs: &ImageInputs,
) -> Result<()> {
    let mut messages = model::system(args.system.as_deref());
    messages.push(question(prompt, inputs.images.len()));
    ensure!(
        model.has_template() || args.then.is_empty(),
        "--then needs a chat template, and the model has none: ask one prompt"
    );
    let mut later = args.then.iter();
    let (mut prompt, mut names) = (prompt, inputs.names);
    loop {
        let answers = answer(args, model, config, model.prompt(&messages, inputs.images)?)?;
        if args.json {
            print_json(&[prompt.to_owned()], names, &answers)?;
        }
        let Some(next) = later.next() else { return Ok(()) };
        let best = answers.first().map(|answer| answer.answer.clone()).unwrap_or_default();
        messages.push(ChatMessage::text("assistant", best));
        messages.push(ChatMessage::text("user", next));
        if !args.json {
            output::print_line(format_args!("\n> {next}"))?;
        }
        prompt = next;
        names = &[];
    }
}

/// The question of a user, with its images before the text.
fn question(prompt: &str, images: usize) -> ChatMessage {
    let mut parts = vec![ChatPart::Image; images];
    parts.push(ChatPart::Text(prompt.to_owned()));
    ChatMessage::new("user", parts)
}

/// How answers are generated: as the arguments say, else as the model's files say.
fn generation(args: &Args, model: &ChatModel) -> Result<GenerationConfig> {
    let mut defaults = model.defaults().clone();
    if defaults.max_new_tokens == GenerationConfig::default().max_new_tokens {
        defaults.max_new_tokens = NEW_TOKENS;
    }
    args.generation.over(&defaults)
}

/// The answers to one prompt, which are printed unless they become JSON.
fn answer(
    args: &Args,
    model: &ChatModel,
    config: &GenerationConfig,
    prompt: model::Prompt,
) -> Result<Vec<Answer>> {
    let is_single = config.num_beams == 1 && config.num_return_sequences == 1;
    if is_single && !args.json {
        let mut printed = Ok(());
        let answer = model.answer_stream(&prompt, config, &mut |piece| {
            printed = output::print(piece);
            printed.is_ok()
        })?;
        printed?;
        output::print_line(cut_mark(&answer))?;
        return Ok(vec![answer]);
    }
    let answers = model.answers(&[(prompt, 0)], config)?.pop().context("the model gave no answer")?;
    match &answers[..] {
        _ if args.json => {}
        [answer] => output::print_line(format_args!("{}{}", answer.answer, cut_mark(answer)))?,
        answers => {
            let row = |answer: &Answer| {
                let text = answer.answer.replace(char::is_control, " ");
                vec![format!("{text}{}", cut_mark(answer)), format!("{:.3}", answer.score)]
            };
            let rows: Vec<_> = answers.iter().map(row).collect();
            output::print(&table::render(&["answer", "score"], &rows))?;
        }
    }
    Ok(answers)
}

/// What stands behind an answer that was cut.
fn cut_mark(answer: &Answer) -> &'static str {
    if answer.finished { "" } else { " ..." }
}

/// Prints the JSON of a prompt; of several inputs the last is the prompt.
fn print_json(inputs: &[String], images: &[String], answers: &[Answer]) -> Result<()> {
    /// A line of `--json`.
    #[derive(Serialize)]
    struct Line<'a> {
        images: &'a [String],
        prompt: &'a str,
        #[serde(flatten)]
        answers: Answers<'a>,
    }
    let prompt = inputs.last().map(String::as_str).unwrap_or_default();
    let line = Line { images, prompt, answers: Answers::new(answers) };
    output::print_line(serde_json::to_string(&line)?)
}

/// The answers to a prompt as JSON.
#[derive(Serialize)]
struct Answers<'a> {
    /// The best.
    answer: &'a str,
    finished: bool,
    answers: &'a [Answer],
}

impl<'a> Answers<'a> {
    fn new(answers: &'a [Answer]) -> Self {
        let best = answers.first();
        Self {
            answer: best.map(|best| best.answer.as_str()).unwrap_or_default(),
            finished: best.is_some_and(|best| best.finished),
            answers,
        }
    }
}
