//! What the schedulers share that compute with noise levels and a scaled input: all of k-diffusion's.

use super::alphas::in_f32;
use super::settings::Settings;
use super::sigmas::{self, Levels};
use super::{Scheduler, prediction};
use crate::Result;
use tch::Tensor;

/// A scheduler over sigma. Its samples are x0 + sigma noise, which the model gets divided by
/// `sqrt(sigma^2 + 1)` (Karras et al. 2022, section 5, for a model of a variance-preserving process).
pub(super) trait SigmaScheduler: std::fmt::Debug + Send {
    /// The timestep and the noise level of each call.
    fn levels(&self) -> &Levels;

    /// The settings.
    fn settings(&self) -> &Settings;

    /// As [`Scheduler::step`].
    fn step(
        &mut self,
        model_output: &Tensor,
        call: usize,
        sample: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor>;

    /// As [`Scheduler::order`].
    fn order(&self) -> usize {
        1
    }

    /// As [`Scheduler::set_begin_index`].
    fn set_begin_index(&mut self, call: usize) -> Result<()>;
}

impl<T: SigmaScheduler> Scheduler for T {
    fn timesteps(&self) -> &[f64] {
        &self.levels().timesteps
    }

    fn sigmas(&self) -> &[f64] {
        &self.levels().sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        sigmas::init_noise_sigma(self.settings(), &self.levels().sigmas)
    }

    fn scale_model_input(&self, sample: &Tensor, call: usize) -> Tensor {
        sigmas::scaled_input(sample, self.levels().sigmas[call])
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        call: usize,
        sample: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor> {
        SigmaScheduler::step(self, model_output, call, sample, noise)
    }

    fn pred_original_sample(&self, model_output: &Tensor, call: usize, sample: &Tensor) -> Tensor {
        let (output, sample) = in_f32(model_output, sample);
        let sigma = self.levels().sigmas[call] as f32;
        prediction::original_of_scaled(self.settings().prediction_type, &output, &sample, sigma)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, call: usize) -> Tensor {
        sigmas::noised(original, noise, self.levels().sigmas[call])
    }

    fn order(&self) -> usize {
        SigmaScheduler::order(self)
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        SigmaScheduler::set_begin_index(self, call)
    }
}
