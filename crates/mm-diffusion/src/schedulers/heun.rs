//! Heun's method over sigma: an Euler step, then the same step with the mean of the slopes at its two ends
//! (Karras et al. 2022, algorithm 1). The last step, to sigma 0, stays Euler's.

use super::alphas::in_f32;
use super::betas::alphas_for_sigmas;
use super::calls::CallCounter;
use super::settings::Settings;
use super::sigma_scheduler::SigmaScheduler;
use super::sigmas::{self, Levels};
use super::{Scheduler, SchedulerKind, prediction, spacing};
use crate::{Error, Result};
use tch::Tensor;

#[derive(Debug)]
pub(super) struct Heun {
    /// Of each model call: all but the first are there twice.
    levels: Levels,
    settings: Settings,
    counter: CallCounter,
    /// The sample before an Euler step, and its slope there.
    started: Option<(Tensor, Tensor)>,
}

impl Heun {
    pub fn new(settings: Settings, steps: usize) -> Result<Self> {
        let alphas_cumprod = alphas_for_sigmas(SchedulerKind::Heun, &settings)?;
        let fractions = spacing::fractions(&settings, steps)?;
        let Levels { timesteps, sigmas } = sigmas::levels(&settings, &alphas_cumprod, &fractions)?;
        let mut doubled = twice_but_first(&sigmas);
        doubled.pop(); // the final sigma is there once
        let levels = Levels { timesteps: twice_but_first(&timesteps), sigmas: doubled };
        let counter = CallCounter::new(levels.timesteps.len());
        Ok(Self { levels, settings, counter, started: None })
    }
}

impl SigmaScheduler for Heun {
    fn levels(&self) -> &Levels {
        &self.levels
    }

    fn settings(&self) -> &Settings {
        &self.settings
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
        let original = self.pred_original_sample(model_output, call, sample);
        let original = prediction::limited(&self.settings, original);
        let (_, sample) = in_f32(model_output, sample);
        let sigma = self.levels.sigmas[call];
        let slope = (&sample - original) / sigma;
        let next = match self.started.take() {
            None => {
                let next = &sample + &slope * (self.levels.sigmas[call + 1] - sigma);
                self.started = Some((sample, slope));
                next
            }
            Some((start, first_slope)) => {
                start + (first_slope + slope) / 2.0 * (sigma - self.levels.sigmas[call - 1])
            }
        };
        self.counter.advance();
        Ok(next.to_kind(kind))
    }

    fn order(&self) -> usize {
        2
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        if call % 2 == 1 {
            return Err(Error::Scheduler(format!(
                "Heun cannot begin at call {call}, which is the second of a step: begin at an even one"
            )));
        }
        self.started = None;
        self.counter.begin(call)
    }
}

fn twice_but_first(values: &[f64]) -> Vec<f64> {
    values.iter().flat_map(|&value| [value, value]).skip(1).collect()
}
