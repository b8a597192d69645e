//! The forward and backward pass of one micro-batch.

use crate::{Loss, Result, Task, TrainConfig, TrainingData};
use mm_core::Precision;
use mm_core::nn::{Processes, over_processes};
use mm_dist::{GradientAverage, ProcessGroup};
use std::sync::Arc;
use tch::{Device, Tensor};

/// Context for the forward and backward pass of one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatch<'a> {
    /// The precision of the forward pass.
    pub precision: Precision,
    /// The model's device.
    pub device: Device,
    /// The factor of this micro-batch's loss in the loss of the step: one over the micro-batches of a step.
    pub loss_scale: f64,
    /// The process group of the run.
    pub group: &'a ProcessGroup,
    /// Averages gradients over the processes; set for the last micro-batch of a step only.
    pub average: Option<&'a GradientAverage>,
}

impl MicroBatch<'_> {
    /// Runs a forward pass under the run's autocast, with batch norms over the batch of all processes.
    pub fn forward<T>(&self, body: impl FnOnce() -> T) -> T {
        let body = || self.precision.autocast(self.device, body);
        if self.group.is_alone() {
            return body();
        }
        let group = self.group.clone();
        let sum = Arc::new(move |x: &Tensor| group.sum_with_gradient(x));
        over_processes(Processes { count: self.group.world(), sum }, body)
    }

    /// Computes the loss of the micro-batch and back-propagates it, scaled by `loss_scale`, in one backward
    /// pass.
    ///
    /// # Errors
    /// `loss` fails, libtorch refuses an operation, or another process is lost.
    pub fn forward_backward(&self, loss: impl FnOnce() -> Result<Loss>) -> Result<Loss> {
        let loss = self.forward(loss)?;
        self.sync_gradients_on_next_backward();
        let scaled =
            if self.loss_scale == 1.0 { loss.total.shallow_clone() } else { &loss.total * self.loss_scale };
        self.backward(&scaled)?;
        Ok(loss)
    }

    /// Back-propagates a part of the scaled loss, for a loss that takes several backward passes.
    ///
    /// # Errors
    /// libtorch refuses an operation, or another process is lost.
    pub fn backward(&self, part: &Tensor) -> Result<()> {
        Ok(part.f_backward().map_err(mm_dist::Error::from)?)
    }

    /// Averages gradients over the processes during the next backward pass, if this is the last micro-batch
    /// of a step. A loss with several backward passes calls it before the last one.
    pub fn sync_gradients_on_next_backward(&self) {
        self.average.iter().for_each(|average| average.arm());
    }
}

/// Runs the micro-batches of a step forward and backward, to measure it: gradients are not averaged over the
/// processes, and nothing is updated. `each` gets every micro-batch with its loss.
///
/// # Errors
/// The data cannot be read, libtorch refuses an operation, or another process is lost.
pub(crate) fn run_unaveraged<T: Task>(
    task: &mut T,
    data: &mut TrainingData<T::Item>,
    train: &TrainConfig,
    precision: Precision,
    group: &ProcessGroup,
    mut each: impl FnMut(&T, &T::Batch, f64),
) -> Result<()> {
    let device = task.variables().device();
    let loss_scale = 1.0 / train.accumulate as f64;
    for _ in 0..train.accumulate {
        let batch = task.next_batch(data, precision)?;
        let micro_batch = MicroBatch { precision, device, loss_scale, group, average: None };
        let loss = task.backward(&batch, &micro_batch)?;
        each(task, &batch, loss.total.double_value(&[]));
    }
    Ok(())
}
