//! The denoiser as the policy of reinforcement learning: predictions with gradients, at the noise levels of a
//! sampler.

use crate::objective::{FlowConfig, NoiseDraw};
use crate::pipeline::{DiffusionPipeline, Family};
use crate::schedulers::{PredictionType, SchedulerKind, SchedulerOptions};
use crate::text::TextConditions;
use crate::{Error, Result};
use mm_core::upload;
use tch::{Kind, Tensor};

/// A call of the sampler: it leads from one noise level to the next.
///
/// Levels are shares of noise of a flow, or `alphas_cumprod` of a diffusion process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerCall {
    /// What the denoiser reads of the level.
    pub timestep: f64,
    /// The level of the sample.
    pub now: f64,
    /// The level after the step.
    pub next: f64,
}

/// What the denoiser reads of N prompts, and with guidance of none.
#[derive(Debug)]
pub struct PolicyConditions {
    prompts: TextConditions,
    none: Option<TextConditions>,
    guidance_scale: f64,
}

/// The levels that training draws from.
#[derive(Clone, Debug)]
pub enum TrainingLevels {
    /// Shares of noise of a flow.
    Flow(FlowConfig),
    /// `alphas_cumprod` of each timestep of a diffusion process.
    Process(Vec<f64>),
}

impl TrainingLevels {
    /// The timestep and the level of a draw.
    pub fn at(&self, draw: NoiseDraw) -> (f64, f64) {
        match self {
            Self::Flow(flow) => {
                let sigma = flow.sigma(draw);
                (1000.0 * sigma, sigma)
            }
            Self::Process(alphas) => {
                let timestep = draw.timestep(alphas.len());
                (timestep as f64, alphas[timestep])
            }
        }
    }
}

impl DiffusionPipeline {
    /// Whether the model predicts a flow, rather than the noise of a diffusion process.
    pub fn is_flow(&self) -> bool {
        self.scheduler.prediction_type() == PredictionType::FlowPrediction
    }

    /// The shape of one sample, `[C, h, w]`: latents, or pixels of a model without an autoencoder.
    pub fn sample_shape(&self) -> [i64; 3] {
        let side = self.denoiser.sample_size();
        [self.latent_channels(), side, side]
    }

    /// The calls of a sampler of `steps` steps: Euler's of a flow, whose last level is 0; of a diffusion
    /// process DDIM's, where the level after the last step is that of the timestep 0, as DDPO has it (Black
    /// et al. 2023), and not 1: a step with noise has a deviation there.
    ///
    /// # Errors
    /// The scheduler refuses the number of steps.
    pub fn sampler_calls(&self, steps: usize) -> Result<Vec<SamplerCall>> {
        let unit = self.denoiser.unit();
        let [_, rows, columns] = self.sample_shape();
        let mu = self.scheduler.dynamic_shift(((rows / unit) * (columns / unit)) as usize);
        let options = SchedulerOptions { mu, ..SchedulerOptions::default() };
        if self.is_flow() {
            let scheduler = self.scheduler.build(steps, &options)?;
            let levels = scheduler.timesteps().iter().zip(scheduler.sigmas().windows(2));
            let call = |(&timestep, levels): (&f64, &[f64])| SamplerCall {
                timestep,
                now: levels[0],
                next: levels[1],
            };
            return Ok(levels.map(call).collect());
        }
        let alphas = self.alphas_cumprod()?;
        let scheduler = self.scheduler.with_kind(SchedulerKind::Ddim)?.build(steps, &options)?;
        let stride = (alphas.len() / steps) as f64;
        let call = |&timestep: &f64| SamplerCall {
            timestep,
            now: alphas[timestep as usize],
            next: alphas[(timestep - stride).max(0.0) as usize],
        };
        Ok(scheduler.timesteps().iter().map(call).collect())
    }

    /// What the denoiser reads of `prompts`, with gradients where the text encoder trains. Above a
    /// `guidance_scale` of 1 also of no prompt.
    ///
    /// # Errors
    /// A prompt cannot be read.
    pub fn policy_conditions(&self, prompts: &[&str], guidance_scale: f64) -> Result<PolicyConditions> {
        let encode = || -> Result<PolicyConditions> {
            let positive = self.text.encode(prompts, 0)?;
            let none = (guidance_scale > 1.0)
                .then(|| self.text.encode_negative(&vec![None; prompts.len()], &positive))
                .transpose()?;
            Ok(PolicyConditions { prompts: positive, none, guidance_scale })
        };
        if self.family == Family::Pixel { encode() } else { tch::no_grad(encode) }
    }

    /// The velocity (noise less image) that a flow predicts for `sample` `[N, C, h, w]`, or the noise that a
    /// diffusion process predicts, f32, guided; with gradients. `timestep` and `level` are `[N]`, f32: a
    /// [`SamplerCall`]'s of each sample.
    ///
    /// # Errors
    /// libtorch refuses the shapes.
    pub fn policy_prediction(
        &self,
        sample: &Tensor,
        (timestep, level): (&Tensor, &Tensor),
        conditions: &PolicyConditions,
    ) -> Result<Tensor> {
        let count = sample.size()[0];
        let channels = self.denoiser.in_channels() - self.latent_channels();
        let input = match channels {
            0 => sample.shallow_clone(),
            // A model that also edits reads no image here.
            _ if self.family == Family::Pixel => sample.constant_pad_nd([0, 0, 0, 0, 0, channels]),
            _ => {
                return Err(Error::Model(format!(
                    "the denoiser reads {channels} channels beside the sample: it edits images and makes none"
                )));
            }
        };
        let output = match &conditions.none {
            None => self.denoise(&input, timestep, &conditions.prompts)?,
            Some(none) => {
                let text = none.followed_by(&conditions.prompts);
                let twice = |x: &Tensor| Tensor::cat(&[x, x], 0);
                let both = self.denoise(&twice(&input), &twice(timestep), &text)?;
                let (none, prompt) = (both.narrow(0, 0, count), both.narrow(0, count, count));
                &none + (prompt - &none) * conditions.guidance_scale
            }
        };
        let level = level.view([-1, 1, 1, 1]);
        let (root, rest) = (level.sqrt(), (1f64 - &level).sqrt());
        Ok(match self.scheduler.prediction_type() {
            PredictionType::FlowPrediction => self.prediction.to_velocity(output, sample, &level),
            PredictionType::Epsilon => output,
            PredictionType::VPrediction => output * root + sample * rest,
            PredictionType::Sample => (sample - output * root) / rest,
        })
    }

    /// `clean` with `noise` `[N, C, h, w]` at the levels `[N]`.
    pub fn policy_noised(&self, clean: &Tensor, noise: &Tensor, level: &Tensor) -> Tensor {
        let level = level.view([-1, 1, 1, 1]);
        match self.is_flow() {
            true => clean * (1f64 - &level) + noise * level,
            false => clean * level.sqrt() + noise * (1f64 - level).sqrt(),
        }
    }

    /// What [`DiffusionPipeline::policy_prediction`] would be if it were right, `[N, C, h, w]`.
    pub fn policy_target(&self, clean: &Tensor, noise: &Tensor) -> Tensor {
        if self.is_flow() { noise - clean } else { noise.shallow_clone() }
    }

    /// The image, or its latents, that a prediction for `sample` at the levels `[N]` means, `[N, C, h, w]`.
    pub fn policy_estimate(&self, sample: &Tensor, prediction: &Tensor, level: &Tensor) -> Tensor {
        let level = level.view([-1, 1, 1, 1]);
        match self.is_flow() {
            true => sample - prediction * level,
            false => (sample - prediction * (1f64 - &level).sqrt()) / level.sqrt(),
        }
    }

    /// The levels that training draws from: as `flow` says, or all timesteps of a diffusion process.
    ///
    /// # Errors
    /// The scheduler has no noise schedule.
    pub fn training_levels(&self, flow: &FlowConfig) -> Result<TrainingLevels> {
        Ok(match self.is_flow() {
            true => TrainingLevels::Flow(flow.clone()),
            false => TrainingLevels::Process(self.alphas_cumprod()?),
        })
    }

    fn alphas_cumprod(&self) -> Result<Vec<f64>> {
        let alphas = self.scheduler.noise_schedule()?.alphas_cumprod;
        Ok(Vec::try_from(alphas.to_kind(Kind::Double))?)
    }

    /// The output of the denoiser in f32, at the size that it is made for.
    fn denoise(&self, input: &Tensor, timestep: &Tensor, text: &TextConditions) -> Result<Tensor> {
        let rows = input.size()[0];
        let side = self.image_side() as f32;
        let sizes = Tensor::from_slice(&[side, side, 0.0, 0.0, side, side]);
        let sizes = upload(&sizes, input.device()).expand([rows, 6], false);
        Ok(self.denoiser.predict(input, timestep, text, &sizes)?.to_kind(Kind::Float))
    }
}
