use crate::{INTERRUPTED, output, progress, ranks, table};
use anyhow::Result;
use indicatif::{HumanDuration, ProgressBar};
use mm_clip::{ClipRunConfig, ClipTask};
use mm_core::config::ConfigFile;
use mm_train::{Event, Metric, Outcome, Resume, Run, RunFolder, StepReport, Task};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Train a model as a TOML configuration says.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm train configs/clip/emoji-vit-tiny.toml --set train.steps=500 --set run.name=short\n  \
                  mm train configs/clip/emoji-vit-tiny.toml --resume latest     # starts the run, and starts it again after a kill"
)]
pub struct Args {
    /// The configuration.
    config: PathBuf,
    /// Override a value of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// latest: go on from the run's latest checkpoint, or begin where it has none. last-good: where the
    /// latest is broken, from the whole one before it. PATH: from the checkpoint in this folder.
    #[arg(long, value_name = "latest|last-good|PATH")]
    resume: Option<String>,
    /// Print one JSON object with the final metrics instead of a table.
    #[arg(long)]
    json: bool,
}

/// Without a terminal, a line this often tells that the run goes on.
const LINE_EVERY: Duration = Duration::from_secs(15);

pub fn run(args: &Args) -> Result<ExitCode> {
    let source = ConfigFile::read(&args.config, &args.overrides)?;
    let mut config = ClipRunConfig::from_source(&source)?;
    let resume = match args.resume.as_deref() {
        None => Resume::No,
        Some("latest") => Resume::Latest,
        Some("last-good") => Resume::LastGood,
        Some(path) => Resume::Path(Path::new(path).to_owned()),
    };
    let resolved = toml::to_string(&config)?;
    let (group, device) = ranks::join(&config.run, &resolved)?;
    config.train.validate_for(group.world(), &source)?;
    // Before the data is read. What another process finds wrong, rank 0 does too.
    let checkpoint = match resume.checkpoint(&config.run.out.join(&config.run.name)) {
        Err(error) if group.is_main() => return Err(error.into()),
        found => found.ok().flatten(),
    };
    let mut task = ClipTask::resumed(&config, device, &group, checkpoint.as_deref())?;
    let vs = task.variables();
    let precision = mm_train::resolve_precision(&config.run, &config.train, &resume, vs, &group)?;
    config.train.precision = precision.into();
    let folder = RunFolder::open(&config.run, &resume, &toml::to_string(&config)?, &group)?;
    if group.is_main() && resume != Resume::No {
        output::note(match &folder.checkpoint {
            Some(checkpoint) => format!("going on from {}", checkpoint.display()),
            None => format!("{} has no checkpoint yet: beginning at step 0", folder.path.display()),
        });
    }
    let interrupt = interrupt_flag()?;

    let bar =
        if group.is_main() { progress::bar(config.train.steps, "steps") } else { ProgressBar::hidden() };
    let terminal = std::io::stderr().is_terminal();
    let mut last_line = Instant::now();
    let mut estimate = Estimate::default();
    let mut watch = |event: Event| match event {
        _ if !group.is_main() => {}
        Event::Step(report) => {
            bar.set_position(report.step);
            bar.set_message(describe(report));
            if let Some(rest) = estimate.step(config.train.steps - report.step) {
                let left = config.train.steps - report.step;
                bar.suspend(|| {
                    output::note(format_args!("about {} for the other {left} steps", HumanDuration(rest)))
                });
            }
            if !terminal && last_line.elapsed() > LINE_EVERY {
                output::note(format_args!(
                    "step {}/{}  {}",
                    report.step,
                    config.train.steps,
                    describe(report)
                ));
                last_line = Instant::now();
            }
        }
        Event::Evaluated { step, metrics } if step < config.train.steps => {
            bar.suspend(|| output::note(format_args!("step {step}: {}", summary(metrics))));
        }
        Event::Evaluated { .. } => {}
        Event::Saved(path) => tracing::info!("saved {}", path.display()),
    };
    let every = config.eval.every;
    let run = Run { config: &config.run, folder: &folder, group: &group, precision };
    let outcome = mm_train::train(&mut task, run, &config.train, every, &interrupt, &mut watch)?;
    bar.finish_and_clear();
    match outcome {
        Outcome::Interrupted(checkpoint) => {
            if group.is_main() {
                output::note(format_args!(
                    "stopped; {} is whole: go on with --resume latest",
                    checkpoint.display()
                ));
            }
            Ok(ExitCode::from(INTERRUPTED))
        }
        Outcome::Finished(metrics) => {
            if group.is_main() {
                print(args.json, &folder.path, &metrics)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The time that the rest of a run takes, estimated once it runs evenly: its first steps build kernels and
/// take memory.
#[derive(Default)]
struct Estimate {
    steps: u32,
    warm: Option<Instant>,
}

impl Estimate {
    const WARM_UP: u32 = 5;
    const STEPS: u32 = 10;

    /// Counts a step; after the tenth, gives the time for the steps that are left.
    fn step(&mut self, left: u64) -> Option<Duration> {
        self.steps += 1;
        if self.steps == Self::WARM_UP {
            self.warm = Some(Instant::now());
        }
        let warm = self.warm.filter(|_| self.steps == Self::STEPS && left > 0)?;
        Some(warm.elapsed().mul_f64(left as f64 / f64::from(Self::STEPS - Self::WARM_UP)))
    }
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

fn describe(report: &StepReport) -> String {
    let StepReport { loss, lr, samples_per_second, waiting, .. } = report;
    let waiting = if *waiting > 0.05 {
        format!("  waiting for data {}", table::percent(*waiting))
    } else {
        String::new()
    };
    format!("loss {loss:.3}  lr {lr:.1e}  {samples_per_second:.0} samples/s{waiting}")
}

/// The metrics that fit a line.
fn summary(metrics: &[Metric]) -> String {
    let short =
        metrics.iter().filter(|metric| metric.name.ends_with("@1") || metric.name.ends_with("accuracy"));
    short
        .map(|metric| format!("{} {}", metric.name, table::percent(metric.value)))
        .collect::<Vec<_>>()
        .join("  ")
}

fn print(json: bool, folder: &Path, metrics: &[Metric]) -> Result<()> {
    if json {
        let metrics: serde_json::Map<_, _> =
            metrics.iter().map(|metric| (metric.name.clone(), metric.value.into())).collect();
        output::print_line(serde_json::json!({ "run": folder, "metrics": metrics }))
    } else {
        let rows: Vec<Vec<String>> =
            metrics.iter().map(|metric| vec![metric.name.clone(), format!("{:.4}", metric.value)]).collect();
        let table = table::render(&["metric", "value"], &rows);
        output::print_line(format_args!("{table}\nThe model is in {}", folder.join("model").display()))
    }
}
