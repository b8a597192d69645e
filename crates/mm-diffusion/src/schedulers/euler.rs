//! Euler's method on the probability flow over sigma (Karras et al. 2022, "Elucidating the design space of
//! diffusion-based generative models", algorithm 2 without churn).

use super::alphas::in_f32;
use super::betas::alphas_for_sigmas;
use super::calls::{check_call, check_step};
use super::settings::{Settings, TimestepType};
use super::sigma_scheduler::SigmaScheduler;
use super::sigmas::{self, Levels};
use super::{PredictionType, SchedulerKind, prediction, spacing};
use crate::Result;
use tch::Tensor;

#[derive(Debug)]
pub(super) struct Euler {
    levels: Levels,
    settings: Settings,
}

impl Euler {
    pub fn new(settings: Settings, steps: usize) -> Result<Self> {
        let alphas_cumprod = alphas_for_sigmas(SchedulerKind::Euler, &settings)?;
        let fractions = spacing::fractions(&settings, steps)?;
        let mut levels = sigmas::levels(&settings, &alphas_cumprod, &fractions)?;
        let continuous = settings.timestep_type == TimestepType::Continuous;
        if continuous && settings.prediction_type == PredictionType::VPrediction {
            // The model knows the noise level, not a training timestep.
            let noise_level = |sigma: &f64| f64::from(0.25 * (*sigma as f32).ln());
            levels.timesteps = levels.sigmas[..levels.sigmas.len() - 1].iter().map(noise_level).collect();
        }
        Ok(Self { levels, settings })
    }
}

impl SigmaScheduler for Euler {
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
        check_step(model_output, call, sample, self.levels.timesteps.len())?;
        let (sigma, next) = (self.levels.sigmas[call] as f32, self.levels.sigmas[call + 1] as f32);
        let kind = sample.kind();
        let (output, sample) = in_f32(model_output, sample);
        let original = prediction::original_of_scaled(self.settings.prediction_type, &output, &sample, sigma);
        let derivative = (&sample - original) / f64::from(sigma);
        Ok((sample + derivative * f64::from(next - sigma)).to_kind(kind))
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        check_call(call, self.levels.timesteps.len())
    }
}
