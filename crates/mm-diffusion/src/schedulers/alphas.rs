//! Runs over `alphas_cumprod`, shared by DDPM, DDIM, PNDM and LCM: a sample before call i is
//! `sqrt(a) x0 + sqrt(1 - a) noise` with a of timestep i.

use super::betas::NoiseSchedule;
use super::prediction;
use super::settings::Settings;
use super::{PredictionType, SchedulerKind};
use crate::{Error, Result};
use tch::{Kind, Tensor};

/// The timesteps of a run, as indices of `alphas_cumprod`.
#[derive(Debug)]
pub(super) struct AlphaRun {
    schedule: NoiseSchedule,
    alphas_cumprod: Vec<f32>,
    indices: Vec<usize>,
    timesteps: Vec<f64>,
    prediction_type: PredictionType,
}

impl AlphaRun {
    pub fn new(kind: SchedulerKind, settings: &Settings, indices: Vec<usize>) -> Result<Self> {
        let schedule = NoiseSchedule::new(kind, settings)?;
        let alphas_cumprod = schedule.to_vec();
        let timesteps = indices.iter().map(|&t| t as f64).collect();
        if let Some(&t) = indices.iter().find(|&&t| alphas_cumprod[t] <= 0.0)
            && settings.prediction_type == PredictionType::Epsilon
        {
            return Err(Error::Scheduler(format!(
                "{kind}: alphas_cumprod is 0 at timestep {t} (rescale_betas_zero_snr), where x0 cannot be \
                 computed from epsilon: use a model that is trained with v_prediction"
            )));
        }
        Ok(Self { schedule, alphas_cumprod, indices, timesteps, prediction_type: settings.prediction_type })
    }

    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    pub fn calls(&self) -> usize {
        self.indices.len()
    }

    /// The training timestep of `call`.
    pub fn index(&self, call: usize) -> usize {
        self.indices[call]
    }

    /// `alphas_cumprod` at `call`.
    pub fn alpha(&self, call: usize) -> f32 {
        self.alphas_cumprod[self.indices[call]]
    }

    /// `alphas_cumprod` at a training timestep, or `last` before the first.
    pub fn alpha_at(&self, timestep: i64, last: f32) -> f32 {
        usize::try_from(timestep).map_or(last, |t| self.alphas_cumprod[t])
    }

    /// `alphas_cumprod` after the last step: 1, or that of the first training timestep (`set_alpha_to_one`).
    pub fn final_alpha(&self, settings: &Settings) -> f32 {
        if settings.set_alpha_to_one { 1.0 } else { self.alphas_cumprod[0] }
    }

    /// x0 at `call`, from f32 tensors.
    pub fn original(&self, output: &Tensor, call: usize, sample: &Tensor) -> Tensor {
        let (alpha, sigma) = weights(self.alpha(call));
        prediction::original(self.prediction_type, output, sample, alpha, sigma)
    }

    pub fn add_noise(&self, original: &Tensor, noise: &Tensor, call: usize) -> Tensor {
        self.schedule.add_noise(original, noise, &Tensor::from_slice(&[self.indices[call] as i64]))
    }
}

/// The weights of x0 and of the noise: the roots of `alpha_cumprod` and of the rest, in f32 as in diffusers.
pub(super) fn weights(alpha_cumprod: f32) -> (f64, f64) {
    (f64::from(alpha_cumprod.sqrt()), f64::from((1.0 - alpha_cumprod).sqrt()))
}

/// The model's output and the sample in f32.
pub(super) fn in_f32(output: &Tensor, sample: &Tensor) -> (Tensor, Tensor) {
    (output.to_kind(Kind::Float), sample.to_kind(Kind::Float))
}
