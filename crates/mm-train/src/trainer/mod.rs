//! The training loop.

mod step;

pub use step::StepReport;

use crate::checkpoint::{self, State, Trained};
use crate::compute::{Compute, difference};
use crate::log::Log;
use crate::{
    Ema, Error, EvalContext, EvalSet, Evaluation, NoProgress, Progress, Result, RunFolder, Shared, Task,
    TaskConfig, TrainConfig, TrainingData,
};
use mm_core::Precision;
use mm_core::optim::{Optimizer, ParamOptions, Partition, Schedule};
use mm_data::Position;
use mm_dist::{GradientAverage, ProcessGroup, ReduceOp};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use step::StepError;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// An event of the loop, for a progress display.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done.
    Step(&'a StepReport),
    /// The task was evaluated after a step.
    Evaluated {
        /// Steps done.
        step: u64,
        /// The evaluation of each set.
        evaluations: &'a [Evaluation],
    },
    /// A checkpoint is complete and on the disk.
    Saved(&'a Path),
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done: the last evaluations. The model is in the run's `model/`.
    Finished(Vec<Evaluation>),
    /// The run was interrupted and left this checkpoint.
    Interrupted(PathBuf),
}

/// Context of a run: its folder, process group and precision.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Its folder, and the checkpoint that it resumes from.
    pub folder: &'a RunFolder,
    /// Its process group.
    pub group: &'a ProcessGroup,
    /// The precision of forward passes: [`crate::resolve_precision`].
    pub precision: Precision,
}

/// Trains a task: gradient accumulation, precision, clipping, AdamW or Muon, schedules, averaged weights,
/// evaluation, logs, checkpoints.
pub struct Trainer<'a, T: Task> {
    task: T,
    config: &'a T::Config,
    data: TrainingData<T::Item>,
    eval_sets: Vec<EvalSet>,
    run: Run<'a>,
    gradients: GradientAverage,
    optimizer: Optimizer,
    schedule: Schedule,
    ema: Option<Ema>,
    /// On rank 0 only.
    log: Option<Log>,
    state: State,
    /// Steps done when this process started.
    first_step: u64,
    /// Seconds that this process spent in steps.
    seconds_stepping: f64,
    last_checkpoint: Option<PathBuf>,
    /// Whether a checkpoint has become due since the last one was written.
    is_checkpoint_due: bool,
    /// The evaluations after the last step, once they are done.
    evaluations: Option<Vec<Evaluation>>,
    /// Whether the task ends the run before its last step.
    is_stopped: bool,
}

impl<'a, T: Task> Trainer<'a, T> {
    /// Takes over `task` and `data`, broadcasts rank 0's variables, and resumes from the run's checkpoint if
    /// it has one. The steps of `config` are resolved
    /// ([`TrainConfig::with_steps`], [`resolve_steps`](crate::resolve_steps)).
    ///
    /// # Errors
    /// The checkpoint does not fit, the disk fails, or another process is lost.
    pub fn new(
        task: T,
        mut data: TrainingData<T::Item>,
        eval_sets: Vec<EvalSet>,
        config: &'a T::Config,
        run: Run<'a>,
    ) -> Result<Self> {
        let Run { folder, group, .. } = run;
        let Shared { run: run_config, train, .. } = config.shared();
        let vs = task.variables();
        let gradients = GradientAverage::new(group, vs)?;
        let partition = if train.shard_optimizer {
            Partition { index: group.rank(), count: group.world() }
        } else {
            Partition::WHOLE
        };
        let optimizer = new_optimizer(&task, train, run.precision, partition);
        let ema = train.ema.map(|decay| Ema::new(vs, decay));
        data.set_run_dir(&folder.path);
        data.fit_to(&task);
        if let Some(frozen) = task.frozen() {
            assert_same_frozen(group, frozen)?;
            if group.is_main() {
                checkpoint::write_frozen(&folder.path, frozen)?;
            }
        }
        let state = State::new(run_config.seed, Compute::of_all(group)?);
        let mut trainer = Self {
            task,
            config,
            data,
            eval_sets,
            run,
            gradients,
            optimizer,
            schedule: train.schedule(),
            ema,
            log: None,
            state,
            first_step: 0,
            seconds_stepping: 0.0,
            last_checkpoint: None,
            is_checkpoint_due: false,
            evaluations: None,
            is_stopped: false,
        };
        if let Some(checkpoint) = &folder.checkpoint {
            trainer.resume(checkpoint)?;
        }
        if group.is_main() {
            trainer.log = Some(Log::open(&folder.path, trainer.state.step)?);
        }
        Ok(trainer)
    }

    /// Restores weights, moments, averages and the position in the data.
    fn resume(&mut self, checkpoint: &Path) -> Result<()> {
        let now = std::mem::take(&mut self.state.compute);
        let state = checkpoint::load(checkpoint, &mut self.trained())?;
        self.state = state;
        let positions = std::mem::take(&mut self.state.positions).into_iter();
        let positions: std::result::Result<Vec<Position>, _> =
            positions.map(serde_json::from_value).collect();
        self.data.resume(positions.map_err(|error| Error::State {
            path: checkpoint.join("state.json"),
            problem: error.to_string(),
        })?);
        let is_cpu = self.task.variables().device() == Device::Cpu;
        if let Some(warning) =
            difference(&self.state.compute, &now).filter(|_| is_cpu && self.run.group.is_main())
        {
            tracing::warn!("{warning}");
        }
        self.state.compute = now;
        self.first_step = self.state.step;
        self.last_checkpoint = Some(checkpoint.to_owned());
        Ok(())
    }

    /// Runs all steps that are left and saves the model. `interrupt`, set in any of the processes, stops the
    /// run after the step it is in; `watch` sees every event.
    ///
    /// # Errors
    /// The task, the disk or libtorch fails, another process is lost, or the loss is not finite. Checkpoints
    /// that are written stay complete.
    pub fn train(
        mut self,
        interrupt: &AtomicBool,
        progress: &dyn Progress,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Outcome> {
        while self.state.step < self.config().train.steps && !self.is_stopped {
            let position = self.data.position().clone();
            let report = match self.step() {
                Ok(report) => report,
                Err(failure) => return Err(self.save_after_failure(failure, position, watch)),
            };
            self.log_step(&report)?;
            watch(Event::Step(&report));
            let is_last = report.step == self.config().train.steps;
            if is_last || is_due(self.config().eval.every, report.step) {
                self.evaluate(progress, watch)?;
            }
            let is_last = is_last || self.is_stopped;
            let (is_interrupted, is_resumable) = self.agree(interrupt)?;
            self.is_checkpoint_due |= is_due(self.config().train.checkpoint_every, report.step);
            if is_last || (is_resumable && (is_interrupted || self.is_checkpoint_due)) {
                let saved = self.save(self.data.position().clone(), watch)?;
                if is_interrupted && !is_last {
                    return Ok(Outcome::Interrupted(saved));
                }
            }
        }
        if self.evaluations.is_none() {
            self.evaluate(&NoProgress, watch)?; // a finished run resumed: nothing was left to train
        }
        self.save_model()?;
        self.run.group.barrier()?; // Wait for rank 0 to finish writing; an early exit looks like a failure.
        Ok(Outcome::Finished(self.evaluations.unwrap_or_default()))
    }

    fn config(&self) -> Shared<'a> {
        self.config.shared()
    }

    fn log_step(&mut self, report: &StepReport) -> Result<()> {
        let is_due = report.step.is_multiple_of(self.config().train.log_every)
            || report.step == self.config().train.steps;
        if let Some(log) = self.log.as_mut().filter(|_| is_due) {
            log.write("train", report.step, &report.values(self.state.seconds))?;
        }
        Ok(())
    }

    /// Whether any process is interrupted, and whether all are resumable.
    fn agree(&self, interrupt: &AtomicBool) -> Result<(bool, bool)> {
        let own = [interrupt.load(Ordering::Relaxed), !self.task.is_resumable()].map(f64::from);
        let any = self.run.group.reduce(&own, ReduceOp::Max)?;
        Ok((any[0] != 0.0, any[1] == 0.0))
    }

    /// Measures all evaluation sets with the averaged weights, if there are any.
    fn evaluate(&mut self, progress: &dyn Progress, watch: &mut dyn FnMut(Event)) -> Result<()> {
        let context = EvalContext {
            group: self.run.group,
            batch_size: self.config().eval.batch_size,
            wants_sections: self.config().eval.images && self.run.group.is_main(),
            progress,
        };
        let Self { task, eval_sets, config, ema, .. } = self;
        let evaluate =
            || eval_sets.iter().map(|set| T::evaluate(task.model(), config, set, &context)).collect();
        let evaluations: Vec<Evaluation> = match with_averages(ema.as_mut(), evaluate) {
            Ok(evaluations) => evaluations,
            // With several processes this one may be alone in its failure, and saving is collective.
            Err(error) if self.run.group.is_alone() => {
                let position = self.data.position().clone();
                return Err(self.save_finished_steps(error, position, watch));
            }
            Err(error) => return Err(error),
        };
        let step = self.state.step;
        if let Some(log) = self.log.as_mut().filter(|log| !log.has_evaluation(step)) {
            log.write_evaluations(step, &evaluations)?;
        }
        watch(Event::Evaluated { step, evaluations: &evaluations });
        if let Some(reason) = self.task.stops_after(&evaluations) {
            if self.run.group.is_main() {
                tracing::warn!("the run ends after step {step}: {reason}");
            }
            self.is_stopped = true;
        }
        let is_last = self.is_stopped || step == self.config().train.steps;
        self.evaluations = is_last.then_some(evaluations);
        Ok(())
    }

    /// Writes a checkpoint from which the run goes on at `position`.
    fn save(&mut self, position: Position, watch: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        let (folder, keep) = (&self.run.folder.path, self.config().train.keep_checkpoints);
        let mut state = self.state.clone();
        let saved = checkpoint::save(folder, &mut state, &position, &self.trained(), keep)?;
        self.is_checkpoint_due = false;
        self.last_checkpoint = Some(saved.clone());
        watch(Event::Saved(&saved));
        Ok(saved)
    }

    /// Saves the finished steps, where all processes failed together in the step after them, and gives the
    /// error to end with.
    fn save_after_failure(
        &mut self,
        failure: StepError,
        position: Position,
        watch: &mut dyn FnMut(Event),
    ) -> Error {
        let StepError { error, is_collective } = failure;
        let is_saved =
            is_due(self.config().train.checkpoint_every, self.state.step) && !self.is_checkpoint_due;
        if !is_collective || is_saved || self.state.step == self.first_step || !self.task.is_resumable() {
            return error;
        }
        self.save_finished_steps(error, position, watch)
    }

    /// Saves the finished steps before the run ends with `error`, so that it can be resumed once the cause is
    /// repaired.
    fn save_finished_steps(
        &mut self,
        error: Error,
        position: Position,
        watch: &mut dyn FnMut(Event),
    ) -> Error {
        match self.save(position, watch) {
            Ok(_) => {
                if self.run.group.is_main() {
                    let steps = self.state.step;
                    tracing::warn!("{steps} steps are finished and saved: continue with --resume latest");
                }
                error
            }
            Err(error) => error,
        }
    }

    /// Writes the run's `model/`, with the averaged weights if there are any.
    fn save_model(&mut self) -> Result<()> {
        if !self.run.group.is_main() {
            return Ok(());
        }
        let Self { task, ema, .. } = self;
        let folder = self.run.folder.path.join("model");
        let saved = mm_core::checkpoint::write_folder(&folder, |partial| {
            with_averages(ema.as_mut(), || task.save_model(partial))
        });
        saved.map_err(|error: Error| Error::ModelNotSaved {
            checkpoint: self.last_checkpoint.clone().unwrap_or_default(),
            source: error.into(),
        })
    }

    /// The parts of a checkpoint.
    fn trained(&mut self) -> Trained<'_> {
        let Self { task, optimizer, ema, run, .. } = self;
        let task = &*task;
        let describe = Box::new(|to: &Path| task.describe_checkpoint(to));
        let frozen = task.frozen();
        Trained { vs: task.variables(), frozen, optimizer, ema: ema.as_mut(), group: run.group, describe }
    }
}

/// The optimizer of a task's variables.
pub(crate) fn new_optimizer<T: Task>(
    task: &T,
    train: &TrainConfig,
    precision: Precision,
    partition: Partition,
) -> Optimizer {
    Optimizer::new(task.variables(), train.adamw(), partition, |name| ParamOptions {
        lr_multiplier: train.layer_decay.powi(task.depth(name) as i32),
        has_weight_decay: task.has_weight_decay(name),
        rule: train.update_rule(task.hidden_matrices(name), precision),
    })
}

/// Checks that all ranks read the same frozen weights: unlike the trained ones they are not broadcast.
fn assert_same_frozen(group: &ProcessGroup, frozen: &VarStore) -> Result<()> {
    if group.is_alone() {
        return Ok(());
    }
    let variables: BTreeMap<String, Tensor> = frozen.variables().into_iter().collect();
    let sum = |(name, variable): (&String, &Tensor)| {
        format!("{name} {:?} {}\n", variable.size(), variable.sum(Kind::Double).double_value(&[]))
    };
    let sums: String = variables.iter().map(sum).collect();
    group.assert_same_on_all_ranks("frozen weights", &sums, |main, own| {
        let differs = main.lines().zip(own.lines()).find(|(main, own)| main != own);
        differs.map_or_else(|| "their number".to_owned(), |(_, own)| own.to_owned())
    })?;
    Ok(())
}

fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// Runs `body` with the averaged weights in place of the trained ones.
fn with_averages<R>(mut ema: Option<&mut Ema>, body: impl FnOnce() -> Result<R>) -> Result<R> {
    if let Some(ema) = &mut ema {
        ema.swap();
    }
    let result = body();
    if let Some(ema) = &mut ema {
        ema.swap();
    }
    result
}
