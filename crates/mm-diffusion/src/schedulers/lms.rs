//! LMS: a linear multistep method of order 4 over sigma, with Adams-Bashforth weights for uneven steps
//! (k-diffusion's `sample_lms`).

use super::alphas::in_f32;
use super::betas::alphas_for_sigmas;
use super::calls::CallCounter;
use super::settings::Settings;
use super::sigma_scheduler::SigmaScheduler;
use super::sigmas::{self, Levels};
use super::{Scheduler, SchedulerKind, spacing};
use crate::Result;
use std::collections::VecDeque;
use tch::Tensor;

const ORDER: usize = 4;

#[derive(Debug)]
pub(super) struct Lms {
    levels: Levels,
    settings: Settings,
    counter: CallCounter,
    /// The newest first; at most [`ORDER`].
    derivatives: VecDeque<Tensor>,
}

impl Lms {
    pub fn new(mut settings: Settings, steps: usize) -> Result<Self> {
        if settings.use_karras_sigmas {
            // This class reads the two for its other spacing alone.
            (settings.sigma_min, settings.sigma_max) = (None, None);
        }
        let alphas_cumprod = alphas_for_sigmas(SchedulerKind::Lms, &settings)?;
        let fractions = spacing::fractions(&settings, steps)?;
        let levels = sigmas::levels(&settings, &alphas_cumprod, &fractions)?;
        let counter = CallCounter::new(levels.timesteps.len());
        Ok(Self { levels, settings, counter, derivatives: VecDeque::new() })
    }

    /// The weight of the derivative `back` calls before `call`: the integral over the step of the polynomial
    /// that is 1 at its sigma and 0 at the other `order` - 1. Gauss' two points are exact for its degree of
    /// 3.
    fn weight(&self, call: usize, order: usize, back: usize) -> f64 {
        let sigma = |back: usize| self.levels.sigmas[call - back];
        let polynomial = |x: f64| -> f64 {
            let others = (0..order).filter(|&other| other != back);
            others.map(|other| (x - sigma(other)) / (sigma(back) - sigma(other))).product()
        };
        let (from, to) = (self.levels.sigmas[call], self.levels.sigmas[call + 1]);
        let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
        let offset = half / 3f64.sqrt();
        half * (polynomial(middle - offset) + polynomial(middle + offset))
    }
}

impl SigmaScheduler for Lms {
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
        let (_, sample) = in_f32(model_output, sample);
        self.derivatives.push_front((&sample - original) / self.levels.sigmas[call]);
        self.derivatives.truncate(ORDER);
        // The order counts calls from the start of the schedule. A run that begins later has fewer
        // derivatives than weights, and leaves out the rest, as in diffusers.
        let order = (call + 1).min(ORDER);
        let weighted = (0..order).zip(&self.derivatives).map(|(back, d)| d * self.weight(call, order, back));
        let next = sample + weighted.sum::<Tensor>();
        self.counter.advance();
        Ok(next.to_kind(kind))
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        self.derivatives.clear();
        self.counter.begin(call)
    }
}
