//! Euler ancestral: an Euler step past the next noise level, and fresh noise up to it (k-diffusion's
//! `sample_euler_ancestral`). Does not converge with more steps, since each adds noise.

use super::alphas::in_f32;
use super::betas::alphas_for_sigmas;
use super::calls::{check_call, check_step, draw};
use super::settings::Settings;
use super::sigma_scheduler::SigmaScheduler;
use super::sigmas::{self, Levels};
use super::{SchedulerKind, prediction, spacing};
use crate::Result;
use tch::Tensor;

#[derive(Debug)]
pub(super) struct EulerAncestral {
    levels: Levels,
    settings: Settings,
}

impl EulerAncestral {
    pub fn new(settings: Settings, steps: usize) -> Result<Self> {
        let alphas_cumprod = alphas_for_sigmas(SchedulerKind::EulerAncestral, &settings)?;
        let fractions = spacing::fractions(&settings, steps)?;
        let levels = sigmas::levels(&settings, &alphas_cumprod, &fractions)?;
        Ok(Self { levels, settings })
    }
}

impl SigmaScheduler for EulerAncestral {
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
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor> {
        check_step(model_output, call, sample, self.levels.timesteps.len())?;
        let (sigma, next) = (self.levels.sigmas[call] as f32, self.levels.sigmas[call + 1] as f32);
        let kind = sample.kind();
        let (output, sample) = in_f32(model_output, sample);
        let original = prediction::original_of_scaled(self.settings.prediction_type, &output, &sample, sigma);
        // next^2 = down^2 + up^2, with the `up` of the posterior.
        let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).sqrt();
        let down = (next * next - up * up).sqrt();
        let derivative = (&sample - original) / f64::from(sigma);
        let moved = &sample + derivative * f64::from(down - sigma);
        // Drawn in the last step too, where `up` is 0: the draws of a seed stay in step with diffusers.
        Ok((moved + draw(noise, &sample)? * f64::from(up)).to_kind(kind))
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        check_call(call, self.levels.timesteps.len())
    }
}
