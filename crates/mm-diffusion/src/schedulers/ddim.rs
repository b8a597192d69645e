//! DDIM: a non-Markovian process with the marginals of training (Song et al. 2020, "Denoising diffusion
//! implicit models", equation 12).

use super::alphas::{AlphaRun, in_f32, weights};
use super::calls::{check_call, check_step, draw};
use super::settings::Settings;
use super::{PredictionType, Scheduler, SchedulerKind, prediction, spacing};
use crate::{Error, Result};
use tch::Tensor;

#[derive(Debug)]
pub(super) struct Ddim {
    run: AlphaRun,
    settings: Settings,
    /// Training timesteps between a call and its target, whatever the spacing.
    stride: i64,
    eta: f64,
}

impl Ddim {
    pub fn new(settings: Settings, steps: usize, eta: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::Scheduler(format!("eta is {eta}: DDIM takes 0 (no noise) to 1 (as DDPM)")));
        }
        let indices = spacing::indices(&settings, steps)?;
        let stride = (settings.num_train_timesteps / steps) as i64;
        let run = AlphaRun::new(SchedulerKind::Ddim, &settings, indices)?;
        Ok(Self { run, settings, stride, eta })
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        self.run.timesteps()
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        call: usize,
        sample: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor> {
        check_step(model_output, call, sample, self.run.calls())?;
        let kind = sample.kind();
        let (output, sample) = in_f32(model_output, sample);
        let alpha_now = self.run.alpha(call);
        let target = self.run.index(call) as i64 - self.stride;
        let alpha_next = self.run.alpha_at(target, self.run.final_alpha(&self.settings));
        let (alpha, sigma) = weights(alpha_now);

        let original = self.run.original(&output, call, &sample);
        // The noise is not computed again from a clipped x0.
        let epsilon = match self.settings.prediction_type {
            PredictionType::Epsilon => output,
            PredictionType::VPrediction => &output * alpha + &sample * sigma,
            PredictionType::Sample | PredictionType::FlowPrediction => (&sample - &original * alpha) / sigma,
        };
        let original = prediction::limited(&self.settings, original);

        let variance = (1.0 - alpha_next) / (1.0 - alpha_now) * (1.0 - alpha_now / alpha_next);
        let deviation = self.eta as f32 * variance.sqrt();
        let direction = (1.0 - alpha_next - deviation * deviation).max(0.0).sqrt();
        let mut next = original * f64::from(alpha_next.sqrt()) + epsilon * f64::from(direction);
        if self.eta > 0.0 {
            next += draw(noise, &sample)? * f64::from(deviation);
        }
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
        check_call(call, self.run.calls())
    }
}
