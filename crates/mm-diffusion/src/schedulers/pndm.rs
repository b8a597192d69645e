//! PNDM: linear multistep methods on the manifold of DDIM's steps (Liu et al. 2022, "Pseudo numerical methods
//! for diffusion models on manifolds").
//!
//! With `skip_prk_steps`, as Stable Diffusion has it, a run starts with a step that the next call takes again
//! with the mean of two outputs: n + 1 calls. Without, it starts with three Runge-Kutta steps of four calls
//! each: n + 9 calls.

use super::alphas::{AlphaRun, in_f32, weights};
use super::calls::CallCounter;
use super::settings::Settings;
use super::{PredictionType, Scheduler, SchedulerKind, spacing};
use crate::{Error, Result};
use tch::Tensor;

/// Calls of the three Runge-Kutta steps at the start.
const PRK_CALLS: usize = 12;

#[derive(Debug)]
pub(super) struct Pndm {
    run: AlphaRun,
    settings: Settings,
    stride: usize,
    counter: CallCounter,
    /// Model outputs of earlier steps, the newest first; at most 4.
    outputs: Vec<Tensor>,
    /// The sum of the weighted outputs of a Runge-Kutta step.
    sum: Option<Tensor>,
    /// The sample that a step of several calls starts from.
    start: Option<Tensor>,
}

impl Pndm {
    pub fn new(settings: Settings, steps: usize) -> Result<Self> {
        let falling = spacing::indices(&settings, steps)?;
        let stride = settings.num_train_timesteps / steps;
        let indices = if settings.skip_prk_steps {
            // The second is called twice; of a single timestep, the first.
            let again = falling.get(1).copied();
            falling.iter().take(1).copied().chain(again).chain(falling.iter().skip(1).copied()).collect()
        } else {
            runge_kutta_then_multistep(&falling, stride)?
        };
        let run = AlphaRun::new(SchedulerKind::Pndm, &settings, indices)?;
        let counter = CallCounter::new(run.calls());
        Ok(Self { run, settings, stride, counter, outputs: vec![], sum: None, start: None })
    }

    /// One of the four calls of a Runge-Kutta step, `part` 0 to 3.
    fn runge_kutta(&mut self, output: Tensor, call: usize, sample: &Tensor) -> Tensor {
        let part = call % 4;
        let start_call = call - part;
        let half = self.stride as i64 / 2;
        let target = self.run.index(call) as i64 - if part.is_multiple_of(2) { half } else { 0 };
        let direction = match part {
            0 => {
                self.sum = Some(&output / 6.0);
                self.outputs.insert(0, output.shallow_clone());
                self.start = Some(sample.shallow_clone());
                output
            }
            1 | 2 => {
                self.sum = self.sum.take().map(|sum| sum + &output / 3.0);
                output
            }
            _ => self.sum.take().map_or(output.shallow_clone(), |sum| sum + &output / 6.0),
        };
        let start = self.start.as_ref().unwrap_or(sample);
        self.transfer(start, self.run.index(start_call) as i64, target, &direction)
    }

    fn multistep(&mut self, output: Tensor, call: usize, sample: &Tensor) -> Tensor {
        let timestep = self.run.index(call) as i64;
        let stride = self.stride as i64;
        if self.settings.skip_prk_steps && self.counter.done() == 1 {
            // The first step again, from its start, with the mean of the outputs at its two ends.
            let mean = self.outputs.first().map_or(output.shallow_clone(), |first| (&output + first) / 2.0);
            let start = self.start.take().unwrap_or_else(|| sample.shallow_clone());
            return self.transfer(&start, timestep + stride, timestep, &mean);
        }
        self.outputs.insert(0, output.shallow_clone());
        self.outputs.truncate(4);
        let direction = match &self.outputs[..] {
            [d, c] => (d * 3.0 - c) / 2.0,
            [d, c, b] => (d * 23.0 - c * 16.0 + b * 5.0) / 12.0,
            [d, c, b, a] => (d * 55.0 - c * 59.0 + b * 37.0 - a * 9.0) / 24.0,
            _ => {
                self.start = Some(sample.shallow_clone());
                output
            }
        };
        self.transfer(sample, timestep, timestep - stride, &direction)
    }

    /// DDIM's step from one timestep to another along an output of the model (equation 11).
    fn transfer(&self, sample: &Tensor, from: i64, to: i64, output: &Tensor) -> Tensor {
        let last = self.run.final_alpha(&self.settings);
        let (alpha_now, alpha_next) = (self.run.alpha_at(from, last), self.run.alpha_at(to, last));
        let (beta_now, beta_next) = (1.0 - alpha_now, 1.0 - alpha_next);
        // The average of raw outputs is converted, not the outputs.
        let epsilon = match self.settings.prediction_type {
            PredictionType::VPrediction => {
                let (alpha, sigma) = weights(alpha_now);
                output * alpha + sample * sigma
            }
            _ => output.shallow_clone(),
        };
        let divisor = alpha_now * beta_next.sqrt() + (alpha_now * beta_now * alpha_next).sqrt();
        sample * f64::from((alpha_next / alpha_now).sqrt())
            - epsilon * f64::from(alpha_next - alpha_now) / f64::from(divisor)
    }
}

impl Scheduler for Pndm {
    fn timesteps(&self) -> &[f64] {
        self.run.timesteps()
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        call: usize,
        sample: &Tensor,
        _noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor> {
        self.counter.check(model_output, call, sample)?;
        let kind = sample.kind();
        let (output, sample) = in_f32(model_output, sample);
        let next = if !self.settings.skip_prk_steps && call < PRK_CALLS {
            self.runge_kutta(output, call, &sample)
        } else {
            self.multistep(output, call, &sample)
        };
        self.counter.advance();
        Ok(next.to_kind(kind))
    }

    fn pred_original_sample(&self, model_output: &Tensor, call: usize, sample: &Tensor) -> Tensor {
        let (output, sample) = in_f32(model_output, sample);
        self.run.original(&output, call, &sample)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, call: usize) -> Tensor {
        self.run.add_noise(original, noise, call)
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        if call > 0 && !self.settings.skip_prk_steps {
            return Err(Error::Scheduler(format!(
                "PNDM cannot start at call {call} with Runge-Kutta steps: set skip_prk_steps, or use another \
                 scheduler"
            )));
        }
        self.counter.begin(call)?;
        self.outputs.clear();
        (self.sum, self.start) = (None, None);
        Ok(())
    }
}

/// The timesteps of the calls without `skip_prk_steps`: of each of the first three steps its start, twice its
/// middle, and its end; then the rest of the `falling` timesteps.
fn runge_kutta_then_multistep(falling: &[usize], stride: usize) -> Result<Vec<usize>> {
    if falling.len() < 4 {
        return Err(Error::Scheduler(format!(
            "PNDM without skip_prk_steps needs 4 steps or more, not {}: set skip_prk_steps",
            falling.len()
        )));
    }
    let half = stride / 2;
    let runge_kutta = falling[..4].windows(2).flat_map(|step| {
        let middle = step[1] + half;
        [step[0], middle, middle, step[1]]
    });
    Ok(runge_kutta.chain(falling[3..].iter().copied()).collect())
}
