//! Which timesteps a run visits: `timestep_spacing`. Rounding is NumPy's, to even numbers at halves.

use super::settings::{Settings, TimestepSpacing};
use crate::{Error, Result};

/// `count` values from `start` to `end`, both included (`numpy.linspace`).
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|index| index as f64 * step + start).collect();
    if count > 1 {
        values[count - 1] = end;
    }
    values
}

/// The timesteps of DDPM, DDIM and PNDM, which index `alphas_cumprod`: `steps` integers, falling.
pub(super) fn indices(settings: &Settings, steps: usize) -> Result<Vec<usize>> {
    let trained = settings.num_train_timesteps;
    if steps > trained {
        return Err(too_many(steps, trained));
    }
    let timesteps = match settings.timestep_spacing {
        TimestepSpacing::Linspace => rounded(falling(linspace(0.0, (trained - 1) as f64, steps))),
        TimestepSpacing::Leading => leading(steps, trained / steps, settings.steps_offset),
        TimestepSpacing::Trailing => trailing(trained, trained, steps),
    };
    within(timesteps, settings)
}

/// The timesteps of the schedulers over sigma: `steps` numbers, falling. With "linspace" they lie between the
/// training timesteps.
pub(super) fn fractions(settings: &Settings, steps: usize) -> Result<Vec<f32>> {
    let trained = settings.num_train_timesteps;
    Ok(match settings.timestep_spacing {
        TimestepSpacing::Linspace => {
            falling(linspace(0.0, (trained - 1) as f64, steps)).into_iter().map(|t| t as f32).collect()
        }
        _ if steps > trained => return Err(too_many(steps, trained)),
        TimestepSpacing::Leading => {
            leading(steps, trained / steps, settings.steps_offset).into_iter().map(|t| t as f32).collect()
        }
        TimestepSpacing::Trailing => {
            trailing(trained, trained, steps).into_iter().map(|t| t as f32).collect()
        }
    })
}

/// The timesteps of DPM-Solver++ and UniPC: integers, falling. "linspace" and "leading" divide by one step
/// more and leave out the last. `last` is the number of training timesteps in use.
pub(super) fn solver_indices(settings: &Settings, steps: usize, last: usize) -> Result<Vec<usize>> {
    let spacing = settings.timestep_spacing;
    let needed = if spacing == TimestepSpacing::Trailing { steps } else { steps + 1 };
    if needed > last {
        return Err(too_many(steps, last + steps - needed));
    }
    let timesteps = match spacing {
        TimestepSpacing::Linspace => {
            let mut timesteps = rounded(falling(linspace(0.0, (last - 1) as f64, steps + 1)));
            timesteps.truncate(steps);
            timesteps
        }
        TimestepSpacing::Leading => {
            let mut timesteps = leading(steps + 1, last / (steps + 1), settings.steps_offset);
            timesteps.truncate(steps);
            timesteps
        }
        TimestepSpacing::Trailing => trailing(last, settings.num_train_timesteps, steps),
    };
    within(timesteps, settings)
}

fn leading(steps: usize, stride: usize, offset: i64) -> Vec<i64> {
    (0..steps).rev().map(|step| (step * stride) as i64 + offset).collect()
}

/// From `start` down in strides of `trained / steps`, minus 1. `numpy.arange`, which diffusers uses, computes
/// the count in floating point and for some numbers of steps (61 of 1000) has one more, at -1: left out here.
fn trailing(start: usize, trained: usize, steps: usize) -> Vec<i64> {
    let stride = trained as f64 / steps as f64;
    let start = start as f64;
    // The stride between the first two values, rounded, as numpy.arange goes on with it.
    let stride = start - (start - stride);
    let timesteps = rounded((0..steps).map(|step| start - step as f64 * stride).collect());
    timesteps.into_iter().map(|t| t - 1).filter(|&t| t >= 0).collect()
}

fn falling(mut values: Vec<f64>) -> Vec<f64> {
    values.reverse();
    values
}

fn rounded(values: Vec<f64>) -> Vec<i64> {
    values.into_iter().map(|t| t.round_ties_even() as i64).collect()
}

fn within(timesteps: Vec<i64>, settings: &Settings) -> Result<Vec<usize>> {
    let trained = settings.num_train_timesteps;
    timesteps
        .into_iter()
        .map(|t| {
            usize::try_from(t).ok().filter(|&t| t < trained).ok_or_else(|| {
                Error::Scheduler(format!(
                    "timestep {t} is not one of the {trained} training timesteps: lower steps_offset ({}) or \
                     the number of steps",
                    settings.steps_offset
                ))
            })
        })
        .collect()
}

fn too_many(steps: usize, most: usize) -> Error {
    Error::Scheduler(format!("{steps} steps, but the model's training timesteps allow {most} at most"))
}
