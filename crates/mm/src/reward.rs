//! `mm reward`: scores of images by reward models.

use crate::model::read_image;
use crate::progress::Bars;
use crate::{output, table};
use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValuesParser;
use mm_core::DeviceConfig;
use mm_core::config::ConfigFile;
use mm_rlhf::{RewardConfig, RewardScores, RewardSum, RewardsConfig};
use mm_train::{NoProgress, Progress};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Score images by a reward model, or by a weighted sum of several.
#[derive(clap::Args)]
#[command(after_help = "The rewards, and what --model is:\n  \
    clip                    cosine of image and prompt: any CLIP; HPSv2\n  \
    pick_score              exp(logit_scale) x cosine: PickScore\n  \
    image_reward            ImageReward: a BLIP with an MLP\n  \
    aesthetic               an MLP (--head) on the CLIP's image embedding; no prompt\n  \
    jpeg_compressibility    minus the size of a JPEG in kB; no model, no prompt\n  \
    jpeg_incompressibility  the size of a JPEG in kB; no model, no prompt\n  \
    scene                   1 where a judge (run.task = \"scene-reader\") sees what a prompt of the shapes \
    data set says, else 0\n  \
    caption_factuality      0 to 1: a captioner's caption of the image beside a prompt of the shapes data \
    set\n\n\
    The last argument is the prompt, which all images are scored with; rewards that read none take images \
    alone. --json prints one object an image: {\"image\", \"prompt\", \"reward\": the weighted sum, \
    \"parts\": {KIND: its score}}.\n\n\
    Examples:\n  \
    mm reward --kind pick_score --model yuvalkirstain/PickScore_v1 a.png b.png \"a cat on a sofa\"\n  \
    mm reward --kind aesthetic --model openai/clip-vit-large-patch14 --head laion.safetensors a.png b.png\n  \
    mm reward --config rewards.toml --json *.png \"a cat on a sofa\"")]
pub struct Args {
    /// The reward.
    #[arg(
        long,
        default_value = "clip",
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(RewardConfig::KINDS),
    )]
    kind: String,
    /// Its model: a folder or a hub name.
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// The safetensors file of the MLP of --kind aesthetic.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// A TOML file of [[reward]] tables with kind, weight and settings, in the place of one reward.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "model", "head"])]
    config: Option<PathBuf>,
    /// The images, then the prompt.
    #[arg(required = true, value_name = "IMAGE... PROMPT")]
    inputs: Vec<PathBuf>,
    /// Images that are scored at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Device: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print one JSON object an image instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let configs = match &args.config {
        Some(file) => ConfigFile::read(file, &[])?.parse::<RewardsConfig>()?.reward,
        None => vec![args.reward()?],
    };
    let (images, prompt) = args.images_and_prompt(&configs)?;
    let opened = RewardSum::open(&configs, &DeviceConfig(args.device.clone()));
    let rewards = opened.with_context(|| match (&args.config, &args.model) {
        (Some(file), _) => format!("cannot open the rewards of {}", file.display()),
        (None, Some(model)) => format!("cannot open the model {model}"),
        (None, None) => format!("cannot open the reward {}", args.kind),
    })?;
    let names: Vec<&str> = rewards.names().collect();
    // The sum of one reward is that reward, but for its weight.
    let shows_sum = names.len() > 1 || configs.iter().any(|config| config.weight() != 1.0);

    // Lines on a terminal would run through the bar.
    let bars = Bars::default();
    let is_hidden = args.json && std::io::stdout().is_terminal();
    let progress: &dyn Progress = if is_hidden { &NoProgress } else { &bars };
    let (mut rows, mut done) = (Vec::new(), 0);
    for paths in images.chunks(args.batch_size as usize) {
        let pixels = paths.iter().map(|path| read_image(path)).collect::<Result<Vec<_>>>()?;
        let scores = rewards.score_parts(&pixels, &vec![prompt.unwrap_or_default(); paths.len()])?;
        for (index, path) in paths.iter().enumerate() {
            match args.json {
                true => print_json(path, prompt, &names, &scores, index)?,
                false => rows.push(table_row(path, &scores, index, shows_sum)),
            }
        }
        done += paths.len();
        progress.report("images scored", done as u64, images.len() as u64);
    }
    if args.json {
        return Ok(());
    }
    let header: Vec<&str> = ["image"].into_iter().chain(names).chain(shows_sum.then_some("reward")).collect();
    output::print(&table::render(&header, &rows))
}

impl Args {
    /// The reward of the arguments.
    fn reward(&self) -> Result<RewardConfig> {
        let mut fields = toml::Table::new();
        fields.insert("kind".to_owned(), self.kind.as_str().into());
        if let Some(model) = &self.model {
            fields.insert("model".to_owned(), model.as_str().into());
        }
        if let Some(head) = &self.head {
            let head = head.to_str().context("the name of --head is not UTF-8")?;
            fields.insert("head".to_owned(), head.into());
        }
        fields.try_into().map_err(|error: toml::de::Error| {
            let (kind, problem) = (&self.kind, error.message());
            // The fields have the names of the options.
            match problem.split('`').nth(1) {
                Some(field) if problem.starts_with("missing field") => {
                    anyhow::anyhow!("--kind {kind} needs --{field}")
                }
                Some(field) if problem.starts_with("unknown field") => {
                    anyhow::anyhow!("--kind {kind} takes no --{field}: leave it out")
                }
                _ => anyhow::anyhow!("--kind {kind}: {problem}"),
            }
        })
    }

    /// The images, and the prompt where a reward reads it.
    fn images_and_prompt(&self, configs: &[RewardConfig]) -> Result<(&[PathBuf], Option<&str>)> {
        let Some(reader) = configs.iter().find(|config| config.reads_prompt()) else {
            return Ok((&self.inputs, None));
        };
        let kind = reader.kind();
        let Some((prompt, images @ [_, ..])) = self.inputs.split_last() else {
            bail!("the reward {kind} reads a prompt: write it in quotes after the images");
        };
        ensure!(
            !prompt.is_file(),
            "the reward {kind} reads a prompt, and the last argument is the file {}: write the prompt in \
             quotes after the images",
            prompt.display()
        );
        Ok((images, Some(prompt.to_str().context("the prompt is not UTF-8")?)))
    }
}

/// Prints the JSON of an image.
fn print_json(
    image: &Path,
    prompt: Option<&str>,
    names: &[&str],
    scores: &RewardScores,
    index: usize,
) -> Result<()> {
    /// A line of `--json`.
    #[derive(Serialize)]
    struct Line<'a> {
        image: &'a Path,
        /// None where no reward reads it.
        prompt: Option<&'a str>,
        reward: f32,
        parts: BTreeMap<&'a str, f32>,
    }
    let parts = names.iter().copied().zip(scores.parts.iter().map(|part| part[index])).collect();
    let line = Line { image, prompt, reward: scores.total[index], parts };
    output::print_line(serde_json::to_string(&line)?)
}

/// The name of an image, its scores, and by `shows_sum` their weighted sum.
fn table_row(image: &Path, scores: &RewardScores, index: usize, shows_sum: bool) -> Vec<String> {
    let sum = shows_sum.then_some(scores.total[index]);
    let numbers = scores.parts.iter().map(|part| part[index]).chain(sum);
    let numbers = numbers.map(|score| format!("{score:.4}"));
    [image.display().to_string()].into_iter().chain(numbers).collect()
}
