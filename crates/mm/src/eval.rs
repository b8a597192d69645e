//! `mm eval`.

use crate::model::PrecisionArg;
use crate::out::OutFile;
use crate::progress::Bars;
use crate::tasks::{self, TaskEntry};
use crate::{caption_metrics, image_metrics, output, ranks, table, vqa_metrics};
use anyhow::{Context, Result, bail, ensure};
use mm_core::config::ConfigFile;
use mm_core::{DeviceConfig, OpenOptions, Precision};
use mm_train::{
    Cell, EvalContext, EvalSet, Evaluation, NoProgress, Progress, Shared, Table, Task, TaskConfig,
};
use std::path::{Path, PathBuf};

/// Measure a trained model on its evaluation sets, or captions or answers in files, or generated images.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  mm eval runs/demo --report runs/demo/report.html\n  \
                  mm eval configs/clip/emoji-vit-tiny.toml --model openai/clip-vit-base-patch32")]
pub struct Args {
    #[command(subcommand)]
    files: Option<Files>,
    /// A run's folder, or the configuration of a run that has ended.
    #[arg(required = true)]
    run: Option<PathBuf>,
    /// Override a value of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Measure this model, a folder or a hub name, on the configuration's sets instead of the run's own; the
    /// numbers are printed alone.
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Also write an HTML page: curves, tables and pictures.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What to compute in; bf16 and int8 write metrics.bf16.json and metrics.int8.json.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// What is measured without a run.
#[derive(clap::Subcommand)]
enum Files {
    Caption(caption_metrics::Args),
    Images(image_metrics::Args),
    Vqa(vqa_metrics::Args),
}

impl Args {
    /// The run's folder or configuration; clap requires it where no files are measured.
    fn run(&self) -> &Path {
        self.run.as_deref().unwrap_or(Path::new(""))
    }
}

/// Reads which task the configuration chooses, and evaluates it.
pub fn dispatch(args: &Args, outside: &[TaskEntry]) -> Result<()> {
    match &args.files {
        Some(Files::Caption(args)) => return caption_metrics::run(args),
        Some(Files::Images(args)) => return image_metrics::run(args),
        Some(Files::Vqa(args)) => return vqa_metrics::run(args),
        None => {}
    }
    let mut file = ConfigFile::read(&config_file(args.run())?, &args.overrides)?;
    (tasks::find(outside, &mut file)?.eval)(args, file)
}

/// Evaluates the task `T`.
pub fn run<T: Task>(args: &Args, mut file: ConfigFile) -> Result<()> {
    let config = mm_train::read_config::<T>(&mut file)?;
    let (precision, model) = (Precision::from(args.precision), args.model.as_deref().unwrap_or_default());
    // All ranks must have the same configuration and arguments.
    let arguments = format!("\"--precision\" = \"{precision:?}\"\n\"--model\" = {model:?}\n");
    let Shared { run, data, eval, .. } = config.shared();
    let (group, device) = ranks::join(run, &(arguments + &toml::to_string(&config)?))?;
    let folder = if args.run().is_dir() { args.run().to_owned() } else { run.folder() };
    ensure!(!data.eval.is_empty(), "{} has no [data.eval.NAME] to measure on", file.path().display());
    let model = match &args.model {
        Some(model) => model.clone(),
        None => model_of_run(&folder, group.is_main())?,
    };
    let on_main = |path: Option<PathBuf>| path.filter(|_| group.is_main());
    let page = on_main(args.report.clone()).map(|file| OutFile::open(&file, &["html", "htm"])).transpose()?;
    let metrics = args.model.is_none().then(|| folder.join(metrics_file(args.precision)));
    let metrics = on_main(metrics).map(|file| OutFile::open(&file, &["json"])).transpose()?;
    let options = OpenOptions { device: DeviceConfig::from(device), precision, ..OpenOptions::default() };
    let opened = T::open_model(&model, &options).with_context(|| format!("cannot open the model {model}"))?;
    let bars = Bars::default();
    let context = EvalContext {
        group: &group,
        batch_size: eval.batch_size,
        wants_sections: page.is_some(),
        progress: if group.is_main() { &bars as &dyn Progress } else { &NoProgress },
    };
    let mut evaluations = Vec::new();
    for (name, dataset) in &data.eval {
        let set = EvalSet::open(name, dataset, data.background, data.max_bad_samples)?;
        evaluations.push(T::evaluate(&opened, &config, &set, &context)?);
    }
    if !group.is_main() {
        return Ok(());
    }
    if let Some(page) = page {
        // The curves of the run do not belong to another model.
        let curves = if args.model.is_none() { read_curves(&folder) } else { String::new() };
        mm_train::write_page(&run.name, &curves, &evaluations, page.path())?;
    }
    let json = serde_json::to_string_pretty(&evaluations)?;
    if let Some(metrics) = metrics {
        metrics.write(|to| std::fs::write(to, &json))?;
    }
    if args.json { output::print_line(json) } else { evaluations.iter().try_for_each(print) }
}

fn metrics_file(precision: PrecisionArg) -> &'static str {
    match precision {
        PrecisionArg::F32 => "metrics.json",
        PrecisionArg::Bf16 => "metrics.bf16.json",
        PrecisionArg::Int8 => "metrics.int8.json",
    }
}

/// The configuration of the run that was given, by its folder or by the configuration itself.
fn config_file(run: &Path) -> Result<PathBuf> {
    let (config, shown) = (run.join("config.toml"), run.display());
    if !run.is_dir() || config.exists() {
        return Ok(if run.is_dir() { config } else { run.to_owned() });
    }
    let model_files =
        ["config.json", "open_clip_config.json", "model.safetensors", "open_clip_model.safetensors"];
    if !model_files.iter().any(|name| run.join(name).exists()) {
        bail!("{shown} is no run's folder: it holds no config.toml; give a run's folder or a configuration");
    }
    match run.parent().filter(|parent| parent.join("config.toml").exists()) {
        Some(parent) => bail!("{shown} is the model of a run: measure it with mm eval {}", parent.display()),
        None => bail!(
            "{shown} is a model's folder, which names no data: give a configuration that has \
             [data.eval.NAME], and the model beside it: \
             mm eval CONFIG --model {shown}"
        ),
    }
}

/// The model of the run in `folder`; of one that has not ended, its latest checkpoint.
fn model_of_run(folder: &Path, is_main: bool) -> Result<String> {
    let (model, latest) = (folder.join("model"), folder.join("checkpoints/latest"));
    let shown = folder.display();
    if model.is_dir() {
        return Ok(model.to_string_lossy().into_owned());
    }
    if latest.exists() {
        if is_main {
            tracing::warn!("the run {shown} is not finished: its latest checkpoint is measured");
        }
        return Ok(latest.to_string_lossy().into_owned());
    }
    if folder.is_dir() {
        bail!("the run {shown} has no model/ yet: finish it (mm train CONFIG --resume latest)")
    }
    bail!("there is no run {shown}: train it first, or name a model to measure with --model")
}

/// What the curves of a page are drawn from; empty where the run wrote none.
fn read_curves(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default()
}

fn print(evaluation: &Evaluation) -> Result<()> {
    let Evaluation { set, samples, bad_samples, tables, .. } = evaluation;
    let mut text = format!("\n{set}: {samples} samples, {bad_samples} could not be read\n");
    if tables.is_empty() {
        let row = |metric: &mm_train::Metric| vec![metric.name.clone(), format!("{:.4}", metric.value)];
        let rows: Vec<_> = evaluation.metrics.iter().map(row).collect();
        text += &format!("\n{}", table::render(&["metric", "value"], &rows));
    }
    for Table { title, columns, rows } in tables {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(Cell::text).collect()).collect();
        text += &format!("\n{title}\n\n{}", table::render(&columns, &rows));
    }
    output::print(&text)
}
