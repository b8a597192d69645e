use crate::checkpoint::{self, State, Trained};
use crate::log::Log;
use crate::{Ema, Error, Metric, Result, RunConfig, RunFolder, Task, TrainConfig};
use mm_core::optim::AdamW;
use mm_core::seed;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What the loop tells whoever watches it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done.
    Step(&'a StepReport),
    /// The task was evaluated after a step.
    Evaluated {
        /// Steps done.
        step: u64,
        /// What came out.
        metrics: &'a [Metric],
    },
    /// A checkpoint is whole and on the disk.
    Saved(&'a Path),
}

/// The numbers of one step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// The mean loss of its micro-batches.
    pub loss: f64,
    /// What the loss is made of.
    pub parts: Vec<(&'static str, f64)>,
    /// The learning rate.
    pub lr: f64,
    /// The norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Samples a second since the process started training, evaluation and checkpoints left out.
    pub samples_per_second: f64,
    /// Share of that time spent waiting for data.
    pub waiting: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done; the last evaluation is here and the model in the run's `model/`.
    Finished(Vec<Metric>),
    /// It was asked to stop and left a checkpoint.
    Interrupted(PathBuf),
}

/// Trains `task` as `config` says, in `folder`, from its checkpoint if it has one, evaluating it every `eval_every` steps (0: only at
/// the end). `interrupt` stops the run after the step it is
/// in; `watch` sees every event.
///
/// # Errors
/// The task, the disk or libtorch fails, or the loss stops being a number. The last checkpoint is whole whatever happens.
pub fn train<T: Task>(
    task: &mut T,
    run: &RunConfig,
    config: &TrainConfig,
    eval_every: u64,
    folder: &RunFolder,
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let device = task.variables().device();
    config.precision.warn_if_emulated(device);
    let schedule = config.schedule();
    let mut optimizer = AdamW::new(task.variables(), config.optimizer(), |name| task.lr_scale(name));
    let mut ema = config.ema.map(|decay| Ema::new(task.variables(), decay));
    task.report_in(&folder.path)?;
    let mut state = State { step: 0, seed: run.seed, position: task.position(), seconds: 0.0 };
    if let Some(checkpoint) = &folder.checkpoint {
        let mut trained = Trained { vs: task.variables(), optimizer: &mut optimizer, ema: ema.as_mut() };
        state = checkpoint::load(checkpoint, &mut trained)?;
        task.restore(state.position.clone())?;
    }
    let mut log = Log::open(&folder.path, state.step)?;
    let (first, mut stepping) = (state.step, 0.0);
    let mut metrics = Vec::new();
    while state.step < config.steps {
        let started = Instant::now();
        seed::set(run.seed, "step", state.step);
        let lr = schedule.at(state.step);
        let position = task.position();
        let accumulated = accumulate(task, config, device);
        let (loss, parts) = match accumulated {
            Ok(accumulated) => accumulated,
            Err(error) => {
                // Data that fails an hour in costs no finished step: once it is mended, the run goes on with this one.
                if state.step > first && !is_due(config.checkpoint_every, state.step) {
                    state.position = position;
                    let trained = Trained { vs: task.variables(), optimizer: &mut optimizer, ema: ema.as_mut() };
                    let saved = checkpoint::save(&folder.path, &state, &trained, config.keep_checkpoints)?;
                    tracing::warn!("{} steps are done and saved: go on with --resume latest", state.step);
                    watch(Event::Saved(&saved));
                }
                return Err(error);
            }
        };
        state.step += 1;
        if !loss.is_finite() {
            return Err(Error::NotFinite { step: state.step, loss });
        }
        let norm = optimizer.gradient_norm();
        optimizer.step(lr, &norm, config.clip_grad)?;
        optimizer.zero_grad();
        task.after_step();
        if let Some(ema) = &mut ema {
            ema.update(state.step);
        }
        let seconds = started.elapsed().as_secs_f64();
        stepping += seconds;
        state.seconds += seconds;
        let report = StepReport {
            step: state.step,
            loss,
            parts,
            lr,
            gradient_norm: norm.double_value(&[]),
            samples_per_second: (state.step - first) as f64 * config.batch_size as f64 / stepping,
            waiting: task.seconds_waiting() / stepping,
        };
        if state.step.is_multiple_of(config.log_every) || state.step == config.steps {
            log.write("train", state.step, &values(&report, state.seconds))?;
        }
        watch(Event::Step(&report));
        let last = state.step == config.steps;
        if last || is_due(eval_every, state.step) {
            metrics = evaluate(task, ema.as_mut())?;
            let values: Vec<_> = metrics.iter().map(|metric| (metric.name.clone(), metric.value)).collect();
            log.write("eval", state.step, &values)?;
            watch(Event::Evaluated { step: state.step, metrics: &metrics });
        }
        let stop = interrupt.load(Ordering::Relaxed);
        if last || stop || is_due(config.checkpoint_every, state.step) {
            state.position = task.position();
            let trained = Trained { vs: task.variables(), optimizer: &mut optimizer, ema: ema.as_mut() };
            let saved = checkpoint::save(&folder.path, &state, &trained, config.keep_checkpoints)?;
            watch(Event::Saved(&saved));
            if stop && !last {
                return Ok(Outcome::Interrupted(saved));
            }
        }
    }
    if metrics.is_empty() {
        metrics = evaluate(task, ema.as_mut())?; // a finished run resumed: nothing was left to train
    }
    save_model(task, ema.as_mut(), &folder.path)?;
    Ok(Outcome::Finished(metrics))
}

fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// Runs the micro-batches of a step forward and backward, and gives the mean loss and its mean parts.
fn accumulate<T: Task>(
    task: &mut T,
    config: &TrainConfig,
    device: tch::Device,
) -> Result<(f64, Vec<(&'static str, f64)>)> {
    let share = 1.0 / config.accumulate as f64;
    let (mut total, mut parts) = (0.0, Vec::<(&'static str, f64)>::new());
    for _ in 0..config.accumulate {
        let batch = task.next_batch()?;
        let loss = config.precision.autocast(device, || task.loss(&batch))?;
        let scaled = if config.accumulate == 1 { loss.total.shallow_clone() } else { &loss.total * share };
        scaled.f_backward().map_err(mm_core::Error::from)?;
        total += loss.total.double_value(&[]) * share;
        for (name, value) in &loss.parts {
            let value = value.double_value(&[]) * share;
            match parts.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => parts.push((name, value)),
            }
        }
    }
    Ok((total, parts))
}

fn values(report: &StepReport, seconds: f64) -> Vec<(String, f64)> {
    let own = [
        ("loss", report.loss),
        ("lr", report.lr),
        ("gradient_norm", report.gradient_norm),
        ("samples_per_second", report.samples_per_second),
        ("waiting", report.waiting),
        ("seconds", seconds),
    ];
    own.into_iter().chain(report.parts.iter().copied()).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Evaluates with the averaged weights where there are any.
fn evaluate<T: Task>(task: &mut T, ema: Option<&mut Ema>) -> Result<Vec<Metric>> {
    with_averages(ema, || task.evaluate())
}

fn save_model<T: Task>(task: &T, ema: Option<&mut Ema>, folder: &Path) -> Result<()> {
    mm_core::checkpoint::write_folder(&folder.join("model"), |partial| with_averages(ema, || task.save_model(partial)))
}

fn with_averages<T>(mut ema: Option<&mut Ema>, body: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(ema) = &mut ema {
        ema.swap();
    }
    let result = body();
    if let Some(ema) = &mut ema {
        ema.swap();
    }
    result
}
