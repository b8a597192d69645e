//! `mm train`.

use crate::display::Display;
use crate::progress::Bars;
use crate::tasks::{self, TaskEntry};
use crate::{INTERRUPTED, output, ranks, table};
use anyhow::{Result, ensure};
use indicatif::{HumanBytes, HumanCount, HumanDuration};
use mm_core::config::ConfigFile;
use mm_data::Dataset;
use mm_dist::ProcessGroup;
use mm_train::{
    CheckReport, EvalSet, Evaluation, NoProgress, Outcome, Progress, Resume, Run, RunFolder, Shared, Task,
    TaskConfig, TaskContext, TrainConfig, Trainer, TrainingData,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Train a model from a TOML configuration.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  mm train configs/clip/emoji-vit-tiny.toml --set train.steps=500 --set run.name=short
  mm train configs/clip/emoji-vit-tiny.toml --resume latest     # starts the run, and restarts it after a kill
  mm train configs/clip/emoji-vit-tiny.toml --check             # one batch, sizes and an estimate")]
pub struct Args {
    /// The configuration.
    config: PathBuf,
    /// Override a value of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// latest: resume from the run's latest checkpoint, or start where it has none. last-good: where the
    /// latest is damaged, resume from the last complete one. PATH: resume from the checkpoint in this folder.
    #[arg(long, value_name = "latest|last-good|PATH")]
    resume: Option<String>,
    /// Open data and model, run one batch, print shapes, sizes and an estimate of the duration, and stop.
    #[arg(long, conflicts_with = "resume")]
    check: bool,
    /// Print one JSON object with the final metrics instead of a table.
    #[arg(long)]
    json: bool,
}

/// Reads which task the configuration chooses, and runs it.
pub fn dispatch(args: &Args, outside: &[TaskEntry]) -> Result<ExitCode> {
    let mut file = ConfigFile::read(&args.config, &args.overrides)?;
    (tasks::find(outside, &mut file)?.train)(args, file)
}

/// Trains the task `T`.
pub fn run<T: Task>(args: &Args, mut file: ConfigFile) -> Result<ExitCode> {
    let mut config = mm_train::read_config::<T>(&mut file)?;
    let resume = match args.resume.as_deref() {
        None => Resume::No,
        Some("latest") => Resume::Latest,
        Some("last-good") => Resume::LastGood,
        Some(path) => Resume::Path(Path::new(path).to_owned()),
    };
    let (group, device) = ranks::join(config.shared().run, &toml::to_string(&config)?)?;
    ensure!(group.is_alone() || !args.check, "--check runs in one process: leave out --nproc");
    config.shared().train.validate_for(group.world(), &file)?;
    // Before the data is read. An error of another rank is one of rank 0 too.
    let checkpoint = match resume.checkpoint(&config.shared().run.folder()) {
        Err(error) if group.is_main() && !args.check => return Err(error.into()),
        found => found.ok().flatten(),
    };
    // The task and the trainer resume from the same checkpoint.
    let resume = checkpoint.clone().map_or(resume, Resume::Path);

    let dataset = open_data(&config, &group)?;
    let length = dataset.stream().is_none().then(|| dataset.len());
    *config.train_mut() = config.shared().train.with_steps(length, &file)?;
    let bars = Bars::default();
    let progress: &dyn Progress = if group.is_main() { &bars } else { &NoProgress };
    let checkpoint = checkpoint.as_deref();
    let context = TaskContext { checkpoint, progress, ..TaskContext::new(device, &group, &dataset) };
    let mut task = T::new(&config, &context)?;
    let Shared { run, train, .. } = config.shared();
    let precision = mm_train::resolve_precision(run, train, &resume, task.variables(), &group)?;
    *config.train_mut() = TrainConfig { precision: precision.into(), ..train.clone() };
    let eval_sets = open_eval_sets(&config)?;
    let mut data = TrainingData::new(dataset, config.shared(), &group, task.preprocess());
    let Shared { run, train, .. } = config.shared();
    let train = mm_train::resolve_steps(&mut task, &mut data, (run, train), &resume, precision, &group)?;
    *config.train_mut() = train;
    let Shared { run, train, .. } = config.shared();
    if args.check {
        let report = mm_train::check(&mut task, &mut data, train, run.seed, precision)?;
        return print_check(args.json, T::NAME, &report, train, &eval_sets).map(|()| ExitCode::SUCCESS);
    }

    let folder = RunFolder::open(run, &resume, &toml::to_string(&config)?, &group)?;
    if group.is_main() && resume != Resume::No {
        output::note(match &folder.checkpoint {
            Some(checkpoint) => format!("resuming from {}", checkpoint.display()),
            None => format!("{} has no checkpoint yet: starting at step 0", folder.path.display()),
        });
    }
    let interrupt = interrupt_flag()?;
    let mut display = Display::new(train.steps, group.is_main());
    let evaluation = display.evaluation();
    let run = Run { folder: &folder, group: &group, precision };
    let trainer = Trainer::new(task, data, eval_sets, &config, run)?;
    let outcome = trainer.train(&interrupt, &evaluation, &mut |event| {
        if group.is_main() {
            display.event(&event);
        }
    })?;
    display.finish();
    end(args.json, &outcome, &folder, group.is_main())
}

/// Opens the training set, which all ranks must see alike.
fn open_data(config: &impl TaskConfig, group: &ProcessGroup) -> Result<Arc<dyn Dataset>> {
    let dataset: Arc<dyn Dataset> = Arc::from(config.shared().data.train.open()?);
    let count = format!("{} samples", dataset.len());
    group.assert_same_on_all_ranks("training data", &count, |main, own| {
        format!("its {own} instead of {main}")
    })?;
    Ok(dataset)
}

fn open_eval_sets(config: &impl TaskConfig) -> mm_train::Result<Vec<EvalSet>> {
    let data = config.shared().data;
    let sets = data.eval.iter();
    sets.map(|(name, set)| EvalSet::open(name, set, data.background, data.max_bad_samples)).collect()
}

/// A flag that the first Ctrl-C sets; the second ends the process at once.
fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        output::note("stopping after this step; press Ctrl-C again to stop at once");
    })?;
    Ok(flag)
}

fn end(json: bool, outcome: &Outcome, folder: &RunFolder, is_main: bool) -> Result<ExitCode> {
    match outcome {
        Outcome::Interrupted(checkpoint) => {
            if is_main {
                let checkpoint = checkpoint.display();
                output::note(format_args!(
                    "stopped; {checkpoint} is complete: continue with --resume latest"
                ));
            }
            Ok(ExitCode::from(INTERRUPTED))
        }
        Outcome::Finished(evaluations) => {
            if is_main {
                print(json, &folder.path, evaluations)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(json: bool, folder: &Path, evaluations: &[Evaluation]) -> Result<()> {
    let metrics = evaluations.iter().flat_map(Evaluation::named_metrics);
    if json {
        let metrics: serde_json::Map<_, _> = metrics.map(|(name, value)| (name, value.into())).collect();
        return output::print_line(serde_json::json!({ "run": folder, "metrics": metrics }));
    }
    let rows: Vec<Vec<String>> = metrics.map(|(name, value)| vec![name, format!("{value:.4}")]).collect();
    let table = if rows.is_empty() { String::new() } else { table::render(&["metric", "value"], &rows) };
    output::print_line(format_args!("{table}\nThe model is in {}", folder.join("model").display()))
}

fn print_check(
    json: bool,
    task: &str,
    report: &CheckReport,
    train: &TrainConfig,
    eval_sets: &[EvalSet],
) -> Result<()> {
    if json {
        let sets: serde_json::Map<_, _> =
            eval_sets.iter().map(|set| (set.name.clone(), set.len().into())).collect();
        return output::print_line(serde_json::json!({
            "task": task,
            "training_samples": report.samples,
            "eval_samples": sets,
            "trainable_parameters": report.trainable,
            "parameters": report.total,
            "batch": report.batch,
            "loss": report.loss,
            "peak_memory_bytes": report.peak_memory,
            "steps": train.steps,
            "seconds_per_step": report.step.as_secs_f64(),
            "seconds": report.run.as_secs_f64(),
        }));
    }
    let count = |count: usize| HumanCount(count as u64).to_string();
    let memory = report.peak_memory.map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string());
    let mut rows = vec![
        ("task", task.to_owned()),
        ("training samples", report.samples.map_or("a stream".to_owned(), count)),
    ];
    let sets: Vec<String> =
        eval_sets.iter().map(|set| format!("{} {}", set.name, count(set.len()))).collect();
    rows.extend([
        ("evaluation samples", sets.join(", ")),
        ("trainable parameters", count(report.trainable as usize)),
        ("all parameters", count(report.total as usize)),
        ("micro-batch", report.batch.clone()),
        ("loss of the first micro-batch", format!("{:.4}", report.loss)),
        ("peak memory without optimizer", memory),
        ("one step", format!("{:.2} s", report.step.as_secs_f64())),
        ("steps", count(train.steps as usize)),
        ("all steps, about", HumanDuration(report.run).to_string()),
    ]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::print(&table::render(&["", "value"], &rows))
}
