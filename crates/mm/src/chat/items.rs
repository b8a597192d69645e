//! Prompts in a file, one JSON object a line.

use super::model::{self, ChatModel, Prompt};
use super::{Answers, Args, generation, question};
use crate::model::read_image;
use crate::out::OutFile;
use crate::output;
use crate::progress::Bars;
use anyhow::{Context, Result, anyhow, bail, ensure};
use mm_text::generate::GenerationConfig;
use mm_train::{NoProgress, Progress};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// A line of the file.
struct Item {
    /// The number of the line, from 1.
    line: usize,
    /// All of its keys.
    fields: Map<String, Value>,
    asked: Asked,
}

/// The keys that are read.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    images: Vec<PathBuf>,
    prompt: String,
    system: Option<String>,
}

/// Reasons that are printed.
const NAMED: usize = 3;

/// Answers the prompts of `file`.
pub fn run(args: &Args, file: &Path) -> Result<()> {
    let out = args.out.as_deref().map(|out| OutFile::open(out, &["jsonl"])).transpose()?;
    let items = read(file)?;
    let beside = || file.parent().map(Path::to_owned).unwrap_or_default();
    let root = args.images_root.clone().unwrap_or_else(beside);
    let model = ChatModel::open(&args.model, args.split_images)?;
    let config = generation(args, &model)?;
    let bars = Bars::default();
    // Lines on a terminal would run through the bar.
    let is_hidden = out.is_none() && std::io::stdout().is_terminal();
    let progress: &dyn Progress = if is_hidden { &NoProgress } else { &bars };
    let (mut rows, mut bad) = (Vec::with_capacity(items.len()), Vec::new());
    for (batch, first) in items.chunks(args.batch_size as usize).zip((0..).step_by(args.batch_size as usize))
    {
        let answered = answer(args, &model, &config, batch, first, &root)?;
        for (item, (row, error)) in batch.iter().zip(answered) {
            bad.extend(error.map(|error| format!("line {}: {error}", item.line)));
            match out {
                Some(_) => rows.push(row),
                None => output::print_line(Value::Object(row))?,
            }
        }
        progress.report("prompts", first + batch.len() as u64, items.len() as u64);
    }
    if let Some(out) = &out {
        out.write_json_lines(&rows)?;
    }
    check_bad(args, &bad, items.len())
}

/// The lines of the file.
fn read(file: &Path) -> Result<Vec<Item>> {
    let text = mm_data::text::read(file)?;
    let mut items = Vec::new();
    for (line, text) in (1..).zip(mm_data::text::lines(&text)).filter(|(_, text)| !text.trim().is_empty()) {
        let at = || format!("{}, line {line}", file.display());
        let layout = "expected {\"images\": [PATH], \"prompt\": TEXT}";
        let fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| anyhow!("{error}: {layout}")).with_context(at)?;
        let asked: Asked = serde_json::from_value(Value::Object(fields.clone()))
            .map_err(|error| anyhow!("{error}: {layout}"))
            .with_context(at)?;
        ensure!(!asked.prompt.trim().is_empty(), "{}: the prompt is empty", at());
        items.push(Item { line, fields, asked });
    }
    ensure!(!items.is_empty(), "{} has no prompt", file.display());
    Ok(items)
}

/// A line of the answers, and the reason if it has none.
type Line = (Map<String, Value>, Option<String>);

/// The line of each item of a batch, with the reason if it has no answer. Item `i` of the file draws by the
/// seed `i`.
fn answer(
    args: &Args,
    model: &ChatModel,
    config: &GenerationConfig,
    batch: &[Item],
    first: u64,
    root: &Path,
) -> Result<Vec<Line>> {
    let prompts: Vec<Result<Prompt>> = batch.iter().map(|item| item.prompt(args, model, root)).collect();
    let seeded = prompts.iter().zip(first..).filter_map(|(prompt, seed)| Some((prompt.as_ref().ok()?, seed)));
    let given: Vec<(Prompt, u64)> = seeded.map(|(prompt, seed)| (prompt.clone(), seed)).collect();
    let answers = model.answers(&given, config)?;
    let mut answers = answers.into_iter();
    let line = |(item, prompt): (&Item, Result<Prompt>)| {
        let mut fields = item.fields.clone();
        let error = prompt.err().map(|error| format!("{error:#}"));
        match &error {
            Some(error) => drop(fields.insert("error".to_owned(), error.as_str().into())),
            None => {
                let answers = answers.next().unwrap_or_default();
                if let Value::Object(found) = serde_json::to_value(Answers::new(&answers))? {
                    fields.extend(found);
                }
            }
        }
        Ok((fields, error))
    };
    batch.iter().zip(prompts).map(line).collect()
}

impl Item {
    fn prompt(&self, args: &Args, model: &ChatModel, root: &Path) -> Result<Prompt> {
        let asked = &self.asked;
        let images: Vec<_> =
            asked.images.iter().map(|image| read_image(&root.join(image))).collect::<Result<_>>()?;
        if args.plain {
            return model.plain_prompt(&asked.prompt, &images);
        }
        let mut messages = model::system(asked.system.as_deref().or(args.system.as_deref()));
        messages.push(question(&asked.prompt, images.len()));
        model.prompt(&messages, &images)
    }
}

/// Fails where more prompts have no answer than the arguments allow.
fn check_bad(args: &Args, bad: &[String], total: usize) -> Result<()> {
    let named = bad.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = if bad.len() > NAMED { "; ..." } else { "" };
    let (count, allowed) = (bad.len(), args.max_bad_samples);
    if count == 0 {
        return Ok(());
    }
    ensure!(count < total, "not one of {total} prompts can be answered: {named}{more}");
    if count > allowed {
        bail!(
            "{count} of {total} prompts cannot be answered, more than --max-bad-samples {allowed}; the \
             others are: {named}{more}"
        );
    }
    tracing::warn!("{count} of {total} prompts cannot be answered: {named}{more}");
    Ok(())
}
