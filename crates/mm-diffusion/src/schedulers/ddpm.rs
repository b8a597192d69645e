//! DDPM: the posterior of the Markov chain of training (Ho et al. 2020, "Denoising diffusion probabilistic
//! models", equations 6 and 7).

use super::alphas::{AlphaRun, in_f32};
use super::calls::{check_call, check_step, draw};
use super::settings::{Settings, VarianceType};
use super::{Scheduler, SchedulerKind, prediction, spacing};
use crate::{Error, Result};
use tch::Tensor;

#[derive(Debug)]
pub(super) struct Ddpm {
    run: AlphaRun,
    settings: Settings,
    variance_type: VarianceType,
}

impl Ddpm {
    pub fn new(settings: Settings, steps: usize) -> Result<Self> {
        let variance_type = settings.variance_type.unwrap_or(VarianceType::FixedSmall);
        let problem = match variance_type {
            VarianceType::Learned | VarianceType::LearnedRange => Some("the model's output has no variance"),
            // diffusers takes the root of a negative logarithm here.
            VarianceType::FixedLargeLog => Some("its deviation is not a number in diffusers"),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(Error::Scheduler(format!(
                "variance_type {variance_type:?} is not supported ({problem}): use fixed_small, \
                 fixed_small_log or fixed_large"
            )));
        }
        let indices = spacing::indices(&settings, steps)?;
        let run = AlphaRun::new(SchedulerKind::Ddpm, &settings, indices)?;
        Ok(Self { run, settings, variance_type })
    }
}

impl Scheduler for Ddpm {
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
        let last = call + 1 == self.run.calls();
        let alpha_next = if last { 1.0 } else { self.run.alpha(call + 1) };
        let (beta_now, beta_next) = (1.0 - alpha_now, 1.0 - alpha_next);
        let alpha_step = alpha_now / alpha_next;
        let beta_step = 1.0 - alpha_step;

        let original = prediction::limited(&self.settings, self.run.original(&output, call, &sample));
        let of_original = alpha_next.sqrt() * beta_step / beta_now;
        let of_sample = alpha_step.sqrt() * beta_next / beta_now;
        let mut next = original * f64::from(of_original) + &sample * f64::from(of_sample);
        if self.run.index(call) > 0 {
            let variance = (beta_next / beta_now * beta_step).max(1e-20);
            let deviation = match self.variance_type {
                VarianceType::FixedLarge => beta_step.sqrt(),
                _ => variance.sqrt(),
            };
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
