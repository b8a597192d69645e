use crate::checkpoint::{self, State, Trained};
use crate::compute::{Compute, difference};
use crate::log::Log;
use crate::{Ema, Error, Metric, MicroBatch, Result, RunConfig, RunFolder, Task, TrainConfig};
use mm_core::optim::{AdamW, Partition};
use mm_core::{Precision, seed};
use mm_dist::{GradientAverage, ProcessGroup, ReduceOp};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Device, Tensor};

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
    /// Of several processes: the share of the exchange of gradients that ran beside the backward pass.
    pub overlap: Option<f64>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done; the last evaluation is here and the model in the run's `model/`.
    Finished(Vec<Metric>),
    /// It was asked to stop and left a checkpoint.
    Interrupted(PathBuf),
}

/// Where a run takes place.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its name and seed.
    pub config: &'a RunConfig,
    /// Its folder, and what it begins from.
    pub folder: &'a RunFolder,
    /// The processes that share it.
    pub group: &'a ProcessGroup,
    /// What forward passes compute in: [`crate::resolve_precision`].
    pub precision: Precision,
}

/// Trains `task` as `config` says, from the run's checkpoint if it has one, evaluating it every `eval_every`
/// steps (0: only at the end). `interrupt`, in any of the processes, stops the run after the step it is in;
/// `watch` sees every event.
///
/// # Errors
/// The task, the disk or libtorch fails, another process is lost, or the loss stops being a number. The last
/// checkpoint is whole whatever happens.
pub fn train<T: Task>(
    task: &mut T,
    run: Run,
    config: &TrainConfig,
    eval_every: u64,
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let Run { config: &RunConfig { seed: run_seed, .. }, folder, group, .. } = run;
    let device = task.variables().device();
    let schedule = config.schedule();
    let (rank, world) = (group.rank(), group.world());
    let mut average = GradientAverage::new(group, task.variables())?;
    let shard =
        if config.shard_optimizer { Partition { index: rank, count: world } } else { Partition::WHOLE };
    let mut optimizer =
        AdamW::new(task.variables(), config.optimizer(), shard, |name| task.lr_multiplier(name));
    let mut ema = config.ema.map(|decay| Ema::new(task.variables(), decay));
    task.set_run_dir(&folder.path)?;
    let compute = Compute::of_all(group)?;
    let mut state = State::new(run_seed, compute.clone());
    if let Some(checkpoint) = &folder.checkpoint {
        state = checkpoint::load(checkpoint, &mut trained(task, &mut optimizer, ema.as_mut(), group))?;
        task.restore(std::mem::take(&mut state.positions))?;
        let before = std::mem::replace(&mut state.compute, compute);
        if let Some(told) =
            difference(&before, &state.compute).filter(|_| device == Device::Cpu && group.is_main())
        {
            tracing::warn!("{told}");
        }
    }
    let mut last_checkpoint = folder.checkpoint.clone().unwrap_or_default();
    let mut log = if group.is_main() { Some(Log::open(&folder.path, state.step)?) } else { None };
    let (first, mut stepping) = (state.step, 0.0);
    let mut metrics = Vec::new();
    while state.step < config.steps {
        let started = Instant::now();
        // Each process draws its own: dropout is no dropout where all leave the same out.
        seed::set(run_seed, "step", state.step * world as u64 + rank as u64);
        let lr = schedule.at(state.step);
        let position = task.position();
        let step = match step(task, config, &run, device, &mut average) {
            Ok(step) => step,
            Err(error) => {
                if error.is_together && state.step > first && !is_due(config.checkpoint_every, state.step) {
                    let trained = trained(task, &mut optimizer, ema.as_mut(), group);
                    save_before_ending(
                        &folder.path,
                        &mut state,
                        position,
                        &trained,
                        config.keep_checkpoints,
                        watch,
                    )?;
                }
                return Err(error.error);
            }
        };
        state.step += 1;
        let (Step { loss, parts }, norm) = mean_over_processes(group, step, optimizer.gradient_norm())?;
        if !loss.is_finite() {
            return Err(Error::NotFinite { step: state.step, loss });
        }
        optimizer.step(lr, &norm, config.clip_grad)?;
        share_updates(group, &optimizer)?;
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
            waiting: task.data_wait() / stepping,
            overlap: (!group.is_alone()).then(|| average.overlap().share()),
        };
        let is_logged = state.step.is_multiple_of(config.log_every) || state.step == config.steps;
        if let Some(log) = log.as_mut().filter(|_| is_logged) {
            log.write("train", state.step, &values(&report, state.seconds))?;
        }
        watch(Event::Step(&report));
        let last = state.step == config.steps;
        if last || is_due(eval_every, state.step) {
            metrics = match evaluate(task, ema.as_mut()) {
                Ok(metrics) => metrics,
                // Of several processes this one may be alone in its failure, and saving takes all.
                Err(error) if group.is_alone() => {
                    let position = task.position();
                    let trained = trained(task, &mut optimizer, ema.as_mut(), group);
                    save_before_ending(
                        &folder.path,
                        &mut state,
                        position,
                        &trained,
                        config.keep_checkpoints,
                        watch,
                    )?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            if let Some(log) = &mut log {
                log.write("eval", state.step, &named(&metrics))?;
            }
            watch(Event::Evaluated { step: state.step, metrics: &metrics });
        }
        let interrupted = f64::from(interrupt.load(Ordering::Relaxed));
        let stop = group.reduce(&[interrupted], ReduceOp::Max)? != [0.0];
        if last || stop || is_due(config.checkpoint_every, state.step) {
            let position = task.position();
            let trained = trained(task, &mut optimizer, ema.as_mut(), group);
            let saved =
                checkpoint::save(&folder.path, &mut state, position, &trained, config.keep_checkpoints)?;
            watch(Event::Saved(&saved));
            if stop && !last {
                return Ok(Outcome::Interrupted(saved));
            }
            last_checkpoint = saved;
        }
    }
    if metrics.is_empty() {
        metrics = evaluate(task, ema.as_mut())?; // a finished run resumed: nothing was left to train
        if let Some(log) = log.as_mut().filter(|log| !log.has_evaluation(state.step)) {
            log.write("eval", state.step, &named(&metrics))?;
        }
    }
    if group.is_main() {
        save_model(task, ema.as_mut(), &folder.path)
            .map_err(|error| Error::ModelNotSaved { checkpoint: last_checkpoint, source: error.into() })?;
    }
    group.barrier()?; // who ends first looks lost to who still works
    Ok(Outcome::Finished(metrics))
}

/// What a checkpoint of the run is made of.
fn trained<'a, T: Task>(
    task: &'a T,
    optimizer: &'a mut AdamW,
    ema: Option<&'a mut Ema>,
    group: &'a ProcessGroup,
) -> Trained<'a> {
    let describe = Box::new(|to: &Path| task.describe_checkpoint(to));
    Trained { vs: task.variables(), optimizer, ema, group, describe }
}

/// Saves the steps that are done before a run ends because its data failed: once that is mended, the run goes
/// on with the next step.
fn save_before_ending(
    folder: &Path,
    state: &mut State,
    position: serde_json::Value,
    trained: &Trained,
    keep: usize,
    watch: &mut dyn FnMut(Event),
) -> Result<()> {
    let saved = checkpoint::save(folder, state, position, trained, keep)?;
    if trained.group.is_main() {
        tracing::warn!("{} steps are done and saved: go on with --resume latest", state.step);
    }
    watch(Event::Saved(&saved));
    Ok(())
}

fn named(metrics: &[Metric]) -> Vec<(String, f64)> {
    metrics.iter().map(|metric| (metric.name.clone(), metric.value)).collect()
}

fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// The mean loss of a process's micro-batches and its mean parts.
struct Step {
    loss: f64,
    parts: Vec<(&'static str, f64)>,
}

/// Why a step failed.
struct StepError {
    error: Error,
    /// Whether all processes know, and can do something together about it.
    is_together: bool,
}

/// Runs the micro-batches of a step forward and back, with gradients averaged over the processes at the end.
fn step<T: Task>(
    task: &mut T,
    config: &TrainConfig,
    run: &Run,
    device: Device,
    average: &mut GradientAverage,
) -> std::result::Result<Step, StepError> {
    let (share, &Run { group, precision, .. }) = (1.0 / config.accumulate as f64, run);
    let mut step = Step { loss: 0.0, parts: Vec::new() };
    let alone = |error: Error| StepError { is_together: group.is_alone(), error };
    for micro_batch in 1..=config.accumulate {
        let batch = next_batch(task, group)?;
        let average = (micro_batch == config.accumulate).then_some(&*average);
        let context = MicroBatch { precision, device, loss_scale: share, group, average };
        let loss = task.backward(&batch, &context).map_err(alone)?;
        step.loss += loss.total.double_value(&[]) * share;
        for (name, value) in &loss.parts {
            let value = value.double_value(&[]) * share;
            match step.parts.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => step.parts.push((name, value)),
            }
        }
    }
    average.finish().map_err(|error| alone(error.into()))?;
    Ok(step)
}

/// The next micro-batch, if every process has one: otherwise all stop here, and none waits in an exchange
/// that never comes about.
fn next_batch<T: Task>(task: &mut T, group: &ProcessGroup) -> std::result::Result<T::Batch, StepError> {
    let batch = task.next_batch();
    let failed = group.reduce(&[f64::from(batch.is_err())], ReduceOp::Max);
    match (batch, failed) {
        (Err(error), Ok(_)) => Err(StepError { error, is_together: true }),
        (Err(error), Err(_)) => Err(StepError { error, is_together: false }),
        (Ok(_), Err(error)) => Err(StepError { error: error.into(), is_together: false }),
        (Ok(batch), Ok(failed)) if failed == [0.0] => Ok(batch),
        (Ok(_), Ok(_)) => Err(StepError { error: Error::Stopped, is_together: true }),
    }
}

/// Loss, gradient norm and parts as means over the processes, in one exchange. The norm is every process's
/// own already, but for the last bit where machines differ: all must clip alike, or their weights part.
fn mean_over_processes(group: &ProcessGroup, step: Step, norm: Tensor) -> Result<(Step, Tensor)> {
    if group.is_alone() {
        return Ok((step, norm));
    }
    let own =
        [step.loss, norm.double_value(&[])].into_iter().chain(step.parts.iter().map(|(_, value)| *value));
    let means = group.reduce(&own.collect::<Vec<_>>(), ReduceOp::Average)?;
    let parts = step.parts.iter().zip(&means[2..]).map(|((name, _), mean)| (*name, *mean)).collect();
    Ok((Step { loss: means[0], parts }, Tensor::from(means[1] as f32).to_device(norm.device())))
}

/// Brings the variables that each process updated to the others, where they share the moments.
fn share_updates(group: &ProcessGroup, optimizer: &AdamW) -> Result<()> {
    let world = optimizer.shard().count;
    if world == 1 {
        return Ok(());
    }
    for owner in 0..world {
        let updated: Vec<Tensor> = optimizer.parameters_of(owner).map(Tensor::detach).collect();
        mm_dist::broadcast_together(group, owner, &updated)?;
    }
    Ok(())
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
    own.into_iter()
        .chain(report.overlap.map(|share| ("overlap", share)))
        .chain(report.parts.iter().copied())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Evaluates with the averaged weights where there are any.
fn evaluate<T: Task>(task: &mut T, ema: Option<&mut Ema>) -> Result<Vec<Metric>> {
    with_averages(ema, || task.evaluate())
}

fn save_model<T: Task>(task: &T, ema: Option<&mut Ema>, folder: &Path) -> Result<()> {
    mm_core::checkpoint::write_folder(&folder.join("model"), |partial| {
        with_averages(ema, || task.save_model(partial))
    })
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
