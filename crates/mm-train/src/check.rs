//! A dry run: one batch through the model, to find mistakes and estimate the cost before a run is started.

use crate::micro_batch::run_unaveraged;
use crate::{Result, Task, TrainConfig, TrainingData};
use mm_core::{Precision, peak_memory, seed};
use mm_dist::ProcessGroup;
use std::time::{Duration, Instant};
use tch::Tensor;

/// The result of a dry run.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Samples in the training set; none for a stream.
    pub samples: Option<usize>,
    /// Elements of the trainable parameters.
    pub trainable: i64,
    /// Elements of all parameters and buffers, frozen ones included.
    pub total: i64,
    /// The shapes of a micro-batch.
    pub batch: String,
    /// The loss of the first micro-batch.
    pub loss: f64,
    /// Peak resident memory of this process, in bytes, optimizer state not included.
    pub peak_memory: Option<u64>,
    /// Time of a step, from the second one on.
    pub step: Duration,
    /// Time of all steps, evaluations and checkpoints not included.
    pub run: Duration,
}

/// Runs the micro-batches of two steps forward and backward, without an update, on this process alone. The
/// second one is timed, because the first builds kernels and fills caches.
///
/// # Errors
/// The data cannot be read, or libtorch refuses an operation.
pub fn check<T: Task>(
    task: &mut T,
    data: &mut TrainingData<T::Item>,
    train: &TrainConfig,
    run_seed: u64,
    precision: Precision,
) -> Result<CheckReport> {
    let group = ProcessGroup::alone();
    data.fit_to(task);
    let (mut first_loss, mut batch_shapes, mut step) = (None, String::new(), Duration::ZERO);
    for number in 0..2 {
        seed::set(run_seed, "step", number);
        let started = Instant::now();
        run_unaveraged(task, data, train, precision, &group, |task, batch, loss| {
            first_loss.get_or_insert(loss);
            batch_shapes = task.describe_batch(batch);
        })?;
        step = started.elapsed();
    }
    let count = |variables: &[Tensor]| variables.iter().map(|variable| variable.numel() as i64).sum();
    let dataset = data.dataset();
    let stores = [Some(task.variables()), task.frozen()].into_iter().flatten();
    let all: Vec<Tensor> = stores.flat_map(|store| store.variables().into_values()).collect();
    Ok(CheckReport {
        samples: dataset.stream().is_none().then(|| dataset.len()),
        trainable: count(&task.variables().trainable_variables()),
        total: count(&all),
        batch: batch_shapes,
        loss: first_loss.unwrap_or(f64::NAN),
        peak_memory: peak_memory(),
        step,
        run: step.mul_f64(train.steps as f64),
    })
}
