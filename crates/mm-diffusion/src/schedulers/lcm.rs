//! LCM: a consistency model jumps to x0, and fresh noise leads back to the next noise level (Luo et al. 2023,
//! "Latent consistency models", algorithm 3).

use super::alphas::{AlphaRun, in_f32, weights};
use super::calls::{check_call, check_step, draw};
use super::settings::Settings;
use super::{Scheduler, SchedulerKind, SchedulerOptions, prediction};
use crate::{Error, Result};
use tch::Tensor;

/// The standard deviation of the data in the boundary condition (Song et al. 2023, appendix C).
const SIGMA_DATA: f64 = 0.5;

#[derive(Debug)]
pub(super) struct Lcm {
    run: AlphaRun,
    settings: Settings,
}

impl Lcm {
    pub fn new(settings: Settings, steps: usize, options: &SchedulerOptions) -> Result<Self> {
        let distilled = options.original_inference_steps.unwrap_or(settings.original_inference_steps);
        let indices = timesteps(&settings, steps, distilled, options.strength)?;
        let run = AlphaRun::new(SchedulerKind::Lcm, &settings, indices)?;
        Ok(Self { run, settings })
    }
}

impl Scheduler for Lcm {
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
        // The boundary condition: at timestep 0 the model's x0 would be the sample itself.
        let scaled = self.run.index(call) as f64 * self.settings.timestep_scaling;
        let skip = SIGMA_DATA.powi(2) / (scaled.powi(2) + SIGMA_DATA.powi(2));
        let out = scaled / (scaled.powi(2) + SIGMA_DATA.powi(2)).sqrt();
        let original = prediction::limited(&self.settings, self.run.original(&output, call, &sample));
        let denoised = original * out + &sample * skip;
        if call + 1 == self.run.calls() {
            return Ok(denoised.to_kind(kind));
        }
        let (alpha, sigma) = weights(self.run.alpha(call + 1));
        Ok((denoised * alpha + draw(noise, &sample)? * sigma).to_kind(kind))
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

/// `steps` of the timesteps of the `distilled` steps of the solver that the model was distilled from, evenly
/// from the highest within `strength`.
fn timesteps(settings: &Settings, steps: usize, distilled: usize, strength: f64) -> Result<Vec<usize>> {
    let trained = settings.num_train_timesteps;
    if !(1..=trained).contains(&distilled) {
        return Err(Error::Scheduler(format!("original_inference_steps is {distilled}: use 1 to {trained}")));
    }
    if !(strength > 0.0 && strength <= 1.0) {
        return Err(Error::Scheduler(format!("strength is {strength}: use above 0 to 1")));
    }
    let within = (distilled as f64 * strength) as usize;
    if steps > within {
        return Err(Error::Scheduler(format!(
            "{steps} steps of {within} distilled ones (original_inference_steps {distilled} x strength \
             {strength}): use at most {within}"
        )));
    }
    let stride = trained / distilled;
    let falling: Vec<usize> = (1..=within).rev().map(|step| step * stride - 1).collect();
    let share = within as f64 / steps as f64;
    Ok((0..steps).map(|step| falling[(step as f64 * share) as usize]).collect())
}
