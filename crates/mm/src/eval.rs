use crate::model::PrecisionArg;
use crate::out::OutFile;
use crate::{output, progress, ranks, table};
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use mm_clip::{
    ClipPipeline, ClipRunConfig, Embedded, EvalReport, EvalSet, OpenOptions, Report, Templates, write_report,
};
use mm_core::config::ConfigFile;
use mm_core::{DeviceConfig, Precision};
use mm_data::DatasetConfig;
use std::path::{Path, PathBuf};

/// Measure a trained model on its evaluation sets.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm eval runs/demo --report runs/demo/report.html\n  \
                  mm eval configs/clip/emoji-vit-tiny.toml --model openai/clip-vit-base-patch32")]
pub struct Args {
    /// A run's folder, or the configuration of a run that has ended.
    run: PathBuf,
    /// Override a value of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Measure this model, a folder or a hub name, on the configuration's sets instead of the run's own; the
    /// numbers are printed alone.
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Also write a page to look at, in .html: curves, searches, heat maps.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What to compute in; bf16 and int8 write metrics.bf16.json and metrics.int8.json.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let file = config_file(&args.run)?;
    let config = ClipRunConfig::from_source(&ConfigFile::read(&file, &args.overrides)?)?;
    let (precision, model) = (Precision::from(args.precision), args.model.as_deref().unwrap_or_default());
    // What all processes must agree on, arguments included.
    let arguments = format!("\"--precision\" = \"{precision:?}\"\n\"--model\" = {model:?}\n");
    let resolved = arguments + &toml::to_string(&config)?;
    let (group, device) = ranks::join(&config.run, &resolved)?;
    let folder = if args.run.is_dir() { args.run.clone() } else { config.run.out.join(&config.run.name) };
    ensure!(!config.data.eval.is_empty(), "{} has no [data.eval.NAME] to measure on", file.display());
    let model = match &args.model {
        Some(model) => model.clone(),
        None => model_of_run(&folder, group.is_main())?,
    };
    let main_alone = |path: Option<PathBuf>| path.filter(|_| group.is_main());
    let page =
        main_alone(args.report.clone()).map(|file| OutFile::open(&file, &["html", "htm"])).transpose()?;
    let metrics = args.model.is_none().then(|| folder.join(metrics_file(args.precision)));
    let metrics = main_alone(metrics).map(|file| OutFile::open(&file, &["json"])).transpose()?;
    let options = OpenOptions { device: DeviceConfig::from(device), precision, ..OpenOptions::default() };
    let bundle =
        ClipPipeline::open(&model, &options).with_context(|| format!("cannot open the model {model}"))?;
    let templates =
        config.eval.templates.as_deref().map_or_else(|| Ok(Templates::default()), Templates::read)?;
    let mut reports = Vec::new();
    for (name, source) in &config.data.eval {
        let set = EvalSet::open(name, source, config.data.background, config.data.max_bad_samples)?;
        let share = set.len().div_ceil(group.world()) as u64;
        let bar = if group.is_main() { progress::bar(share, "images") } else { ProgressBar::hidden() };
        let (image, text) = (&bundle.image, Some(&bundle.text));
        let mut progress = |done| bar.set_position(done as u64);
        let embedded = Embedded::embed_set(image, text, &set, config.eval.batch_size, &group, &mut progress)?;
        bar.finish_and_clear();
        let report = EvalReport::evaluate(name, &bundle, &embedded, &templates, config.eval.batch_size)?;
        if let Some(page) = page.as_ref().filter(|_| reports.is_empty()) {
            // The curves of a run are not another model's.
            let curves = if args.model.is_none() { read_curves(&folder) } else { String::new() };
            write_page(&curves, &config, &bundle, &set, &embedded, &report, page.path())?;
        }
        reports.push(report);
    }
    if !group.is_main() {
        return Ok(());
    }
    let json = serde_json::to_string_pretty(&reports)?;
    if let Some(metrics) = metrics {
        metrics.write(|to| std::fs::write(to, &json))?;
    }
    match args.json {
        true => output::print_line(json),
        false => reports.iter().try_for_each(print),
    }
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
            "{shown} is a model's folder, which names no data: give a configuration that has [data.eval.NAME], and the model beside it: \
             mm eval CONFIG --model {shown}"
        ),
    }
}

/// The model of the run in `folder`; of one that has not ended, its latest checkpoint.
fn model_of_run(folder: &Path, is_main: bool) -> Result<String> {
    let (model, latest) = (folder.join("model"), folder.join("checkpoints/latest"));
    let shown = folder.display();
    match () {
        () if model.is_dir() => Ok(model.to_string_lossy().into_owned()),
        () if latest.exists() => {
            if is_main {
                tracing::warn!("the run {shown} has not ended: its latest checkpoint is measured");
            }
            Ok(latest.to_string_lossy().into_owned())
        }
        () if folder.is_dir() => {
            bail!("the run {shown} has no model/ yet: let it end (mm train CONFIG --resume latest)")
        }
        () => bail!("there is no run {shown}: train it first, or name a model to measure with --model"),
    }
}

/// What the curves of a page are drawn from; empty where the run wrote none.
fn read_curves(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default()
}

fn write_page(
    metrics: &str,
    config: &ClipRunConfig,
    bundle: &ClipPipeline,
    set: &EvalSet,
    embedded: &Embedded,
    evaluation: &EvalReport,
    file: &Path,
) -> Result<()> {
    let credit = match config.data.train {
        DatasetConfig::Emoji(_) => mm_data::emoji::CREDIT,
        _ => "",
    };
    let report = Report { title: &config.run.name, metrics, evaluation, set, embedded, credit };
    Ok(write_report(&report, bundle, file)?)
}

fn print(report: &EvalReport) -> Result<()> {
    let rows: Vec<Vec<String>> = report
        .retrieval_rows()
        .into_iter()
        .map(|(pairs, row, found)| {
            let [r1, r5, r10, median] = found.named().map(|(_, value)| value);
            vec![
                row,
                pairs.to_string(),
                table::percent(r1),
                table::percent(r5),
                table::percent(r10),
                median.to_string(),
            ]
        })
        .collect();
    let (name, samples, bad) = (&report.name, report.samples, report.bad_samples);
    let mut text = format!("\n{name}: {samples} samples, {bad} could not be read\n");
    if !rows.is_empty() {
        text += &format!(
            "\n{}",
            table::render(&["retrieval", "pairs", "R@1", "R@5", "R@10", "median rank"], &rows)
        );
    }
    if let Some(zero_shot) = &report.zero_shot {
        let share = |part: usize, of: usize| {
            if of == 0 { "-".to_owned() } else { table::percent(part as f64 / of as f64) }
        };
        let rows: Vec<Vec<String>> = zero_shot
            .classes
            .iter()
            .map(|class| {
                let recall = share(class.correct, class.images);
                vec![
                    class.label.clone(),
                    class.images.to_string(),
                    recall,
                    share(class.correct, class.predicted),
                ]
            })
            .collect();
        let chance = table::percent(1.0 / zero_shot.classes.len() as f64);
        text += &format!("\nZero-shot accuracy {} (chance {chance})\n", table::percent(zero_shot.accuracy));
        text += &format!("\n{}", table::render(&["class", "images", "found", "right when said"], &rows));
    }
    output::print(&text)
}
