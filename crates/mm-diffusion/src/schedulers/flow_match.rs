//! Euler's method on the straight flow of rectified-flow models (Esser et al. 2024, "Scaling rectified flow
//! transformers", sections 2 and 5.3.2): a sample is (1 - sigma) x0 + sigma noise, the model predicts
//! noise - x0.

use super::alphas::in_f32;
use super::calls::{check_call, check_step, draw};
use super::settings::Settings;
use super::sigmas::{self, Levels, rounded};
use super::spacing::linspace;
use super::{PredictionType, Scheduler, prediction};
use crate::Result;
use tch::Tensor;

#[derive(Debug)]
pub(super) struct FlowMatchEuler {
    levels: Levels,
    settings: Settings,
}

impl FlowMatchEuler {
    pub fn new(settings: Settings, steps: usize, mu: Option<f64>) -> Result<Self> {
        let levels = levels(&settings, steps, mu)?;
        Ok(Self { levels, settings })
    }
}

impl Scheduler for FlowMatchEuler {
    fn timesteps(&self) -> &[f64] {
        &self.levels.timesteps
    }

    fn sigmas(&self) -> &[f64] {
        &self.levels.sigmas
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
        let moved = if self.settings.stochastic_sampling {
            let original = &sample - output * f64::from(sigma);
            original * f64::from(1.0 - next) + draw(noise, &sample)? * f64::from(next)
        } else {
            sample + output * f64::from(next - sigma)
        };
        Ok(moved.to_kind(kind))
    }

    fn pred_original_sample(&self, model_output: &Tensor, call: usize, sample: &Tensor) -> Tensor {
        let (output, sample) = in_f32(model_output, sample);
        let sigma = self.levels.sigmas[call];
        prediction::original(PredictionType::FlowPrediction, &output, &sample, 1.0 - sigma, sigma)
    }

    /// `scale_noise` of diffusers.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, call: usize) -> Tensor {
        let sigma = Tensor::from_slice(&[self.levels.sigmas[call]]);
        let sigma = sigma.to_kind(original.kind()).to_device(original.device());
        &sigma * noise + (1.0 - &sigma) * original
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        check_call(call, self.levels.timesteps.len())
    }
}

fn levels(settings: &Settings, steps: usize, mu: Option<f64>) -> Result<Levels> {
    let trained = settings.num_train_timesteps as f64;
    let shift = sigmas::shift(settings, settings.shift, mu)?;
    // The constructor of diffusers shifts the sigmas of training, and a run's sigmas, between the first and
    // the last of these, are shifted again. With dynamic shifting they are shifted once.
    let (max, min) = match settings.use_dynamic_shifting {
        true => (1.0, 1.0 / trained as f32),
        false => (shifted_f32(shift, 1.0), shifted_f32(shift, 1.0 / trained as f32)),
    };
    let line = linspace(f64::from(max) * trained, f64::from(min) * trained, steps);
    let mut sigmas: Vec<f64> = line.into_iter().map(|t| sigmas::shifted(shift, t / trained)).collect();
    if let Some(terminal) = settings.shift_terminal.filter(|&terminal| terminal != 0.0) {
        sigmas::stretched(&mut sigmas, terminal)?;
    }
    let bounds = (sigmas[steps - 1], sigmas[0]);
    let sigmas = sigmas::respaced(settings, bounds, steps)?.unwrap_or(sigmas);
    let mut sigmas: Vec<f64> = sigmas.into_iter().map(rounded).collect();
    if settings.invert_sigmas {
        sigmas = sigmas.into_iter().map(|sigma| rounded(1.0 - sigma)).collect();
    }
    let timesteps = sigmas.iter().map(|&sigma| sigma * trained).collect();
    sigmas.push(if settings.invert_sigmas { 1.0 } else { 0.0 });
    Levels::new(timesteps, sigmas)
}

fn shifted_f32(shift: f64, sigma: f32) -> f32 {
    let shift_less_one = (shift - 1.0) as f32;
    shift as f32 * sigma / (1.0 + shift_less_one * sigma)
}
