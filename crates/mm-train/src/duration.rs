//! The steps of a run that is given minutes.

use crate::micro_batch::run_unaveraged;
use crate::trainer::new_optimizer;
use crate::{Result, Resume, RunConfig, Task, TrainConfig, TrainingData};
use mm_core::optim::Partition;
use mm_core::{Precision, seed};
use mm_dist::{ProcessGroup, ReduceOp};
use std::time::Instant;
use tch::Tensor;

/// Steps before the measured ones: the first of them build kernels and fill caches.
const WARM_UP: u64 = 3;
/// About the time of the measured ones, and their most.
const SECONDS: f64 = 5.0;
const MOST: u64 = 30;

/// `train` with the steps that take `train.minutes`: a few are timed, and their effect on variables and data
/// is undone. Without `minutes` it stays as it is. A resumed run keeps the steps in its `config.toml`: from
/// then on the run depends on no clock. With several processes the slowest counts, without the time that
/// gradients are averaged in.
///
/// # Errors
/// The data cannot be read, libtorch refuses an operation, or another process is lost.
pub fn resolve_steps<T: Task>(
    task: &mut T,
    data: &mut TrainingData<T::Item>,
    (run, train): (&RunConfig, &TrainConfig),
    resume: &Resume,
    precision: Precision,
    group: &ProcessGroup,
) -> Result<TrainConfig> {
    let Some(minutes) = train.minutes else { return Ok(train.clone()) };
    let written = match resume {
        Resume::No => None,
        _ => run.written("train", "steps").and_then(|steps| u64::try_from(steps.as_integer()?).ok()),
    };
    // Rank 0's: the others may not see the folder.
    let written = group.broadcast_bytes(&written.unwrap_or_default().to_le_bytes())?;
    let written = u64::from_le_bytes(written.try_into().expect("eight bytes were sent"));
    let steps = if written > 0 {
        written
    } else {
        let seconds = seconds_per_step(task, data, (run, train), precision, group)?;
        let steps = ((minutes * 60.0 / seconds) as u64).max(train.warmup + 1);
        if group.is_main() {
            tracing::info!("{minutes} minutes are {steps} steps: measured {:.1} ms a step", seconds * 1e3);
        }
        steps
    };
    Ok(TrainConfig { steps, minutes: None, ..train.clone() })
}

/// The time of a step, of the slowest process. Variables and data are as before.
fn seconds_per_step<T: Task>(
    task: &mut T,
    data: &mut TrainingData<T::Item>,
    (run, train): (&RunConfig, &TrainConfig),
    precision: Precision,
    group: &ProcessGroup,
) -> Result<f64> {
    data.fit_to(task);
    let mut optimizer = new_optimizer(task, train, precision, Partition::WHOLE);
    let variables = task.variables().variables();
    let before: Vec<(Tensor, Tensor)> =
        variables.into_values().map(|variable| (variable.detach(), variable.detach().copy())).collect();
    let mut measure = |first: u64, count: u64| -> Result<f64> {
        let started = Instant::now();
        for number in first..first + count {
            seed::set(run.seed, "step", number);
            run_unaveraged(task, data, train, precision, group, |_, _, _| {})?;
            // At a learning rate of 0: no weight changes, though buffers may.
            let norm = optimizer.gradient_norm();
            optimizer.step(0.0, &norm, train.clip_grad)?;
            optimizer.zero_grad();
            task.after_step();
        }
        let seconds = started.elapsed().as_secs_f64() / count as f64;
        Ok(group.reduce(&[seconds], ReduceOp::Max)?[0])
    };
    measure(0, WARM_UP - 1)?;
    let about = measure(WARM_UP - 1, 1)?;
    let seconds = measure(WARM_UP, ((SECONDS / about).ceil() as u64).clamp(1, MOST))?;
    tch::no_grad(|| {
        for (mut variable, value) in before {
            variable.copy_(&value);
        }
    });
    task.restart();
    data.restart();
    Ok(seconds)
}
