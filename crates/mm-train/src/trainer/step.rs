//! One optimizer step: micro-batches forward and backward, averages over the processes, the update.

use super::Trainer;
use crate::{Error, MicroBatch, Result, Task};
use mm_core::optim::Optimizer;
use mm_core::seed;
use mm_dist::{ProcessGroup, ReduceOp};
use std::time::Instant;
use tch::Tensor;

/// The numbers of one step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// The mean loss of its micro-batches.
    pub loss: f64,
    /// The parts of the loss.
    pub parts: Vec<(&'static str, f64)>,
    /// The learning rate.
    pub lr: f64,
    /// The norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Samples a second since the process started training, without evaluations and checkpoints.
    pub samples_per_second: f64,
    /// The share of that time spent waiting for data.
    pub data_wait: f64,
    /// With several processes: the share of the gradients' all-reduce that ran during the backward pass.
    pub overlap: Option<f64>,
}

/// The mean loss of a process's micro-batches and the mean of its parts.
struct StepLoss {
    total: f64,
    parts: Vec<(&'static str, f64)>,
}

/// The reason that a step failed.
pub(super) struct StepError {
    pub(super) error: Error,
    /// Whether all processes failed in the same place, so that they can still save together.
    pub(super) is_collective: bool,
}

impl<T: Task> Trainer<'_, T> {
    /// Runs one optimizer step.
    pub(super) fn step(&mut self) -> std::result::Result<StepReport, StepError> {
        let started = Instant::now();
        let (rank, world) = (self.run.group.rank() as u64, self.run.group.world() as u64);
        // Each rank draws its own numbers: the same dropout mask on all ranks would be one mask for several
        // samples.
        seed::set(self.config().run.seed, "step", self.state.step * world + rank);
        let lr = self.schedule.at(self.state.step);
        let loss = self.forward_backward()?;
        let update = self.update(loss, lr).map_err(|error| StepError { error, is_collective: false })?;
        let seconds = started.elapsed().as_secs_f64();
        self.seconds_stepping += seconds;
        self.state.seconds += seconds;
        let samples = (self.state.step - self.first_step) as f64 * self.config().train.batch_size as f64;
        Ok(StepReport {
            step: self.state.step,
            samples_per_second: samples / self.seconds_stepping,
            data_wait: self.data.data_wait().as_secs_f64() / self.seconds_stepping,
            overlap: (!self.run.group.is_alone()).then(|| self.gradients.overlap().share()),
            ..update
        })
    }

    /// Runs the micro-batches of a step forward and backward; gradients are averaged over the processes
    /// during the last one.
    fn forward_backward(&mut self) -> std::result::Result<StepLoss, StepError> {
        let accumulate = self.config().train.accumulate;
        let (group, device) = (self.run.group, self.task.variables().device());
        let loss_scale = 1.0 / accumulate as f64;
        let mut step = StepLoss { total: 0.0, parts: Vec::new() };
        let alone = |error: Error| StepError { is_collective: group.is_alone(), error };
        for index in 1..=accumulate {
            let batch = self.next_batch()?;
            let average = (index == accumulate).then_some(&self.gradients);
            let precision = self.run.precision;
            let micro_batch = MicroBatch { precision, device, loss_scale, group, average };
            let loss = self.task.backward(&batch, &micro_batch).map_err(alone)?;
            step.total += loss.total.double_value(&[]) * loss_scale;
            for (name, value) in &loss.parts {
                let value = value.double_value(&[]) * loss_scale;
                match step.parts.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => *sum += value,
                    None => step.parts.push((name, value)),
                }
            }
        }
        self.gradients.finish().map_err(|error| alone(error.into()))?;
        Ok(step)
    }

    /// The next micro-batch, if every process has one; otherwise all stop here, before a collective that some
    /// would never join.
    fn next_batch(&mut self) -> std::result::Result<T::Batch, StepError> {
        let batch = self.task.next_batch(&mut self.data, self.run.precision);
        let failed = self.run.group.reduce(&[f64::from(batch.is_err())], ReduceOp::Max);
        match (batch, failed) {
            (Err(error), Ok(_)) => Err(StepError { error, is_collective: true }),
            (Err(error), Err(_)) => Err(StepError { error, is_collective: false }),
            (Ok(_), Err(error)) => Err(StepError { error: error.into(), is_collective: false }),
            (Ok(batch), Ok(failed)) if failed == [0.0] => Ok(batch),
            (Ok(_), Ok(_)) => Err(StepError { error: Error::Stopped, is_collective: true }),
        }
    }

    /// Clips the gradients, updates the variables and everything that follows them.
    fn update(&mut self, loss: StepLoss, lr: f64) -> Result<StepReport> {
        let group = self.run.group;
        if self.state.step == self.first_step {
            let names: Vec<&str> = loss.parts.iter().map(|(name, _)| *name).collect();
            group.assert_same_on_all_ranks("loss parts", &names.join(", "), |main, own| {
                format!("[{own}] instead of [{main}]: Loss::parts must have the same names on all ranks")
            })?;
        }
        self.state.step += 1;
        let (loss, norm) = mean_over_processes(group, loss, self.optimizer.gradient_norm())?;
        if !loss.total.is_finite() {
            return Err(Error::NotFinite {
                step: self.state.step,
                loss: loss.total,
                checkpoint: self.last_checkpoint.clone(),
            });
        }
        self.optimizer.step(lr, &norm, self.config().train.clip_grad)?;
        share_updates(group, &self.optimizer)?;
        self.optimizer.zero_grad();
        self.task.after_step();
        if let Some(ema) = &mut self.ema {
            ema.update(self.state.step);
        }
        Ok(StepReport {
            step: self.state.step,
            loss: loss.total,
            parts: loss.parts,
            lr,
            gradient_norm: norm.double_value(&[]),
            samples_per_second: 0.0,
            data_wait: 0.0,
            overlap: None,
        })
    }
}

impl StepReport {
    /// The numbers as logs have them.
    pub(super) fn values(&self, seconds: f64) -> Vec<(String, f64)> {
        let own = [
            ("loss", self.loss),
            ("lr", self.lr),
            ("gradient_norm", self.gradient_norm),
            ("samples_per_second", self.samples_per_second),
            ("data_wait", self.data_wait),
            ("seconds", seconds),
        ];
        own.into_iter()
            .chain(self.overlap.map(|share| ("overlap", share)))
            .chain(self.parts.iter().copied())
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// Loss, gradient norm and parts as means over the processes, in one all-reduce. The norm is the same on all
/// ranks up to the last bit, which may differ between machines: all ranks must clip by one number, or their
/// weights diverge.
fn mean_over_processes(group: &ProcessGroup, loss: StepLoss, norm: Tensor) -> Result<(StepLoss, Tensor)> {
    if group.is_alone() {
        return Ok((loss, norm));
    }
    let own =
        [loss.total, norm.double_value(&[])].into_iter().chain(loss.parts.iter().map(|(_, value)| *value));
    let means = group.reduce(&own.collect::<Vec<_>>(), ReduceOp::Average)?;
    let parts = loss.parts.iter().zip(&means[2..]).map(|((name, _), mean)| (*name, *mean)).collect();
    let norm = Tensor::from(means[1] as f32).to_device(norm.device());
    Ok((StepLoss { total: means[0], parts }, norm))
}

/// Broadcasts the variables that each process updated, where the optimizer's state is partitioned.
fn share_updates(group: &ProcessGroup, optimizer: &Optimizer) -> Result<()> {
    let count = optimizer.shard().count;
    if count == 1 {
        return Ok(());
    }
    for owner in 0..count {
        let updated: Vec<Tensor> = optimizer.parameters_of(owner).map(Tensor::detach).collect();
        mm_dist::broadcast_together(group, owner, &updated)?;
    }
    Ok(())
}
