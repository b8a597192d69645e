use crate::model::PrecisionArg;
use crate::{progress, ranks, table};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use mm_clip::{Bundle, ClipRunConfig, Embedded, EvalReport, EvalSet, OpenOptions, Report, Templates, write_report};
use mm_core::checkpoint::write_atomically;
use mm_core::config::Source;
use mm_core::{DeviceConfig, Precision};
use mm_data::SourceConfig;
use std::path::{Path, PathBuf};

/// Measure a trained model on its evaluation sets.
#[derive(clap::Args)]
#[command(after_help = "Example: mm eval runs/demo --report runs/demo/report.html")]
pub struct Args {
    /// A run's folder, or the configuration of a run that has ended.
    run: PathBuf,
    /// Override a value of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Also write a page to look at: curves, searches, heat maps.
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
    let file = if args.run.is_dir() { args.run.join("config.toml") } else { args.run.clone() };
    let config = ClipRunConfig::from_source(&Source::read(&file, &args.overrides)?)?;
    let resolved = format!("{}precision = {:?}\n", toml::to_string(&config)?, Precision::from(args.precision));
    let (group, device) = ranks::join(&config.run, &resolved)?;
    let folder = if args.run.is_dir() { args.run.clone() } else { config.run.out.join(&config.run.name) };
    let model = folder.join("model");
    let (device, precision) = (DeviceConfig::from(device), args.precision.into());
    let options = OpenOptions { device, precision, ..OpenOptions::default() };
    let bundle = Bundle::open(&model.to_string_lossy(), &options)
        .with_context(|| format!("cannot open the model of the run {}; has it ended?", folder.display()))?;
    let templates = config.eval.templates.as_deref().map_or_else(|| Ok(Templates::default()), Templates::read)?;
    let mut reports = Vec::new();
    for (name, source) in &config.data.eval {
        let set = EvalSet::open(name, source, config.data.background, config.data.max_bad_samples)?;
        let share = set.len().div_ceil(group.world()) as u64;
        let bar = if group.is_main() { progress::bar(share, "images") } else { ProgressBar::hidden() };
        let (image, text) = (&bundle.image, Some(&bundle.text));
        let mut progress = |done| bar.set_position(done as u64);
        let embedded = Embedded::read(image, text, &set, config.eval.batch_size, &group, &mut progress)?;
        bar.finish_and_clear();
        let report = EvalReport::new(name, &bundle, &embedded, &templates, config.eval.batch_size)?;
        if let Some(file) = args.report.as_ref().filter(|_| reports.is_empty() && group.is_main()) {
            write_page(&folder, &config, &bundle, &set, &embedded, &report, file)?;
        }
        reports.push(report);
    }
    anyhow::ensure!(!reports.is_empty(), "{} has no [data.eval.NAME] to measure on", file.display());
    if !group.is_main() {
        return Ok(());
    }
    let json = serde_json::to_string_pretty(&reports)?;
    let metrics = folder.join(match args.precision {
        PrecisionArg::F32 => "metrics.json",
        PrecisionArg::Bf16 => "metrics.bf16.json",
        PrecisionArg::Int8 => "metrics.int8.json",
    });
    write_atomically(&metrics, |to| {
        std::fs::write(to, &json).map_err(|source| mm_core::Error::io("write", &metrics, source))
    })?;
    match args.json {
        true => println!("{json}"),
        false => reports.iter().for_each(print),
    }
    Ok(())
}

fn write_page(
    folder: &Path,
    config: &ClipRunConfig,
    bundle: &Bundle,
    set: &EvalSet,
    embedded: &Embedded,
    evaluation: &EvalReport,
    file: &Path,
) -> Result<()> {
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default(); // a page without curves
    let credit = match config.data.train {
        SourceConfig::Emoji(_) => mm_data::emoji::CREDIT,
        _ => "",
    };
    let report = Report { title: &config.run.name, metrics: &metrics, evaluation, set, embedded, credit };
    Ok(write_report(&report, bundle, file)?)
}

fn print(report: &EvalReport) {
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
    println!("\n{}: {} samples, {} could not be read", report.name, report.samples, report.bad_samples);
    if !rows.is_empty() {
        print!("\n{}", table::render(&["retrieval", "pairs", "R@1", "R@5", "R@10", "median rank"], &rows));
    }
    if let Some(zero_shot) = &report.zero_shot {
        let share =
            |part: usize, of: usize| if of == 0 { "-".to_owned() } else { table::percent(part as f64 / of as f64) };
        let rows: Vec<Vec<String>> = zero_shot
            .classes
            .iter()
            .map(|class| {
                let recall = share(class.correct, class.images);
                vec![class.label.clone(), class.images.to_string(), recall, share(class.correct, class.predicted)]
            })
            .collect();
        let chance = table::percent(1.0 / zero_shot.classes.len() as f64);
        println!("\nZero-shot accuracy {} (chance {chance})", table::percent(zero_shot.accuracy));
        print!("\n{}", table::render(&["class", "images", "found", "right when said"], &rows));
    }
}
