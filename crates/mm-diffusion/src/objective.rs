//! What a denoiser learns: flow matching, and the noise of a diffusion process.

use crate::schedulers::{NoiseSchedule, PredictionType};
use mm_data::SampleRng;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use tch::{Kind, Tensor};

/// What a model of a flow predicts. On the straight path `z = (1 - s) x + s e` from an image x to noise e any
/// of the three gives the others (Li & He 2025, "Back to basics: let denoising generative models denoise").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowPrediction {
    /// The velocity `e - x`.
    #[default]
    Velocity,
    /// The image x: what a transformer on large patches of pixels can learn, whose width is that of a patch.
    Sample,
    /// The noise e.
    Noise,
}

/// The least share of noise, or of the image, that a division is by.
const LEAST: f64 = 0.05;

impl FlowPrediction {
    /// The velocity at `sigma`, a number or `[B, 1, 1, 1]`, for the `output` of a model that was given
    /// `noisy`.
    pub(crate) fn to_velocity(self, output: Tensor, noisy: &Tensor, sigma: impl Into<Sigma>) -> Tensor {
        match (self, sigma.into()) {
            (Self::Velocity, _) => output,
            (Self::Sample, Sigma::Same(sigma)) => (noisy - output) / sigma.max(LEAST),
            (Self::Sample, Sigma::Each(sigma)) => (noisy - output) / sigma.clamp_min(LEAST),
            (Self::Noise, Sigma::Same(sigma)) => (output - noisy) / (1.0 - sigma).max(LEAST),
            (Self::Noise, Sigma::Each(sigma)) => (output - noisy) / (-sigma + 1.0).clamp_min(LEAST),
        }
    }
}

/// The share of noise: one for a batch, or one an image.
pub(crate) enum Sigma {
    Same(f64),
    Each(Tensor),
}

impl From<f64> for Sigma {
    fn from(sigma: f64) -> Self {
        Self::Same(sigma)
    }
}

impl From<&Tensor> for Sigma {
    fn from(sigma: &Tensor) -> Self {
        Self::Each(sigma.shallow_clone())
    }
}

/// Flow matching (Lipman et al. 2023; Esser et al. 2024, section 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowConfig {
    /// What the model predicts.
    pub prediction: FlowPrediction,
    /// What the squared error is of.
    pub loss: FlowPrediction,
    /// The share of noise is the logistic function of a normal number of this mean; above 0 more noise.
    pub logit_mean: f64,
    /// Its deviation; 0: the share is uniform.
    pub logit_std: f64,
    /// The shift of the sampler's noise levels.
    pub shift: f64,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            prediction: FlowPrediction::Velocity,
            loss: FlowPrediction::Velocity,
            logit_mean: 0.0,
            logit_std: 1.0,
            shift: 1.0,
        }
    }
}

/// What decides the level of noise of one image, as a loader thread draws it.
#[derive(Clone, Copy, Debug)]
pub struct NoiseDraw {
    /// From 0 to 1.
    pub(crate) uniform: f64,
    /// From the standard normal distribution.
    pub(crate) normal: f64,
}

impl NoiseDraw {
    /// Draws the numbers.
    pub fn new(rng: &mut SampleRng) -> Self {
        Self { uniform: rng.random(), normal: standard_normal(rng) }
    }

    /// The training timestep, of `count`.
    pub(crate) fn timestep(self, count: usize) -> usize {
        ((self.uniform * count as f64) as usize).min(count - 1)
    }
}

/// A number by the Box-Muller transform (1958).
fn standard_normal(rng: &mut SampleRng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (TAU * rng.random::<f64>()).cos()
}

impl FlowConfig {
    /// The share of noise of an image.
    pub(crate) fn sigma(&self, draw: NoiseDraw) -> f64 {
        match self.logit_std {
            0.0 => draw.uniform,
            std => 1.0 / (1.0 + (-(self.logit_mean + std * draw.normal)).exp()),
        }
    }

    /// The noisy images: `clean` and `noise` `[B, C, H, W]`, `sigma` `[B]`.
    pub fn noisy(&self, clean: &Tensor, noise: &Tensor, sigma: &Tensor) -> Tensor {
        let sigma = per_image(sigma);
        clean * (1.0 - &sigma) + noise * sigma
    }

    /// The mean squared error of each image, `[B]`, of the model's `output` for `noisy` images.
    pub fn loss(
        &self,
        output: &Tensor,
        noisy: &Tensor,
        clean: &Tensor,
        noise: &Tensor,
        sigma: &Tensor,
    ) -> Tensor {
        mean_per_image(&self.errors(output, noisy, clean, noise, sigma))
    }

    /// The squared errors that [`FlowConfig::loss`] is the mean of, `[B, C, H, W]`.
    pub fn errors(
        &self,
        output: &Tensor,
        noisy: &Tensor,
        clean: &Tensor,
        noise: &Tensor,
        sigma: &Tensor,
    ) -> Tensor {
        let output = output.to_kind(Kind::Float);
        let sigma = per_image(sigma);
        let error = if self.loss == self.prediction {
            match self.loss {
                FlowPrediction::Velocity => output - (noise - clean),
                FlowPrediction::Sample => output - clean,
                FlowPrediction::Noise => output - noise,
            }
        } else {
            let velocity = self.prediction.to_velocity(output, noisy, &sigma);
            match self.loss {
                FlowPrediction::Velocity => velocity - (noise - clean),
                FlowPrediction::Sample => noisy - velocity * sigma - clean,
                FlowPrediction::Noise => noisy + velocity * (-sigma + 1.0) - noise,
            }
        };
        error.square()
    }
}

/// The loss of a diffusion process with a noise schedule (Ho et al. 2020).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdpmConfig {
    /// The largest weight of an image by its signal-to-noise ratio (Hang et al. 2023, "Efficient diffusion
    /// training via min-SNR weighting strategy"), usually 5; none: all weigh the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_snr_gamma: Option<f64>,
    /// The error from which the loss grows linearly (pseudo-Huber); none: squared errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huber: Option<f64>,
    /// The share of noise that is the same for all positions of a channel, for very bright and dark images.
    pub noise_offset: f64,
    /// Whether the schedule is changed so that its last step is noise alone (Lin et al. 2024).
    pub rescale_betas_zero_snr: bool,
}

impl DdpmConfig {
    /// The loss of each image, `[B]`: `output` of a model that predicts `prediction`, for images with `noise`
    /// of the timesteps `[B]`.
    pub fn loss(
        &self,
        schedule: &NoiseSchedule,
        prediction: PredictionType,
        output: &Tensor,
        clean: &Tensor,
        noise: &Tensor,
        timesteps: &Tensor,
    ) -> Tensor {
        mean_per_image(&self.errors(schedule, prediction, output, clean, noise, timesteps))
    }

    /// The weighted errors that [`DdpmConfig::loss`] is the mean of, `[B, C, H, W]`.
    pub fn errors(
        &self,
        schedule: &NoiseSchedule,
        prediction: PredictionType,
        output: &Tensor,
        clean: &Tensor,
        noise: &Tensor,
        timesteps: &Tensor,
    ) -> Tensor {
        let target = match prediction {
            PredictionType::VPrediction => schedule.velocity(clean, noise, timesteps),
            PredictionType::Sample => clean.shallow_clone(),
            PredictionType::Epsilon | PredictionType::FlowPrediction => noise.shallow_clone(),
        };
        let squared = (output.to_kind(Kind::Float) - target).square();
        let error = match self.huber {
            Some(delta) => ((squared + delta * delta).sqrt() - delta) * (2.0 * delta),
            None => squared,
        };
        let Some(gamma) = self.min_snr_gamma else { return error };
        let snr = schedule.snr(timesteps);
        let capped = snr.clamp_max(gamma);
        let weight = match prediction {
            PredictionType::VPrediction => capped / (snr + 1.0),
            PredictionType::Sample => capped,
            // Without any signal the weight of the noise is its limit, 1.
            _ => (capped / &snr).nan_to_num(Some(1.0), None, None),
        };
        error * per_image(&weight)
    }

    /// `noise` `[B, C, H, W]` with the offset: `channels` `[B, C, 1, 1]` is standard normal too.
    pub fn offset_noise(&self, noise: &Tensor, channels: &Tensor) -> Tensor {
        noise + channels * self.noise_offset
    }
}

/// `[B]` to `[B, 1, 1, 1]`.
fn per_image(numbers: &Tensor) -> Tensor {
    numbers.view([-1, 1, 1, 1])
}

/// The mean of each image, `[B]`.
pub(crate) fn mean_per_image(x: &Tensor) -> Tensor {
    x.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{normal, uniform};

    const ALL: [FlowPrediction; 3] =
        [FlowPrediction::Velocity, FlowPrediction::Sample, FlowPrediction::Noise];

    #[test]
    fn the_true_prediction_has_no_loss_in_any_form() {
        let (clean, noise) = (normal(1, &[3, 2, 4, 4]), normal(2, &[3, 2, 4, 4]));
        let sigma = uniform(3, &[3]) * 0.8 + 0.1;
        for prediction in ALL {
            for loss in ALL {
                let config = FlowConfig { prediction, loss, ..FlowConfig::default() };
                let noisy = config.noisy(&clean, &noise, &sigma);
                let output = match prediction {
                    FlowPrediction::Velocity => &noise - &clean,
                    FlowPrediction::Sample => clean.shallow_clone(),
                    FlowPrediction::Noise => noise.shallow_clone(),
                };
                let largest = config.loss(&output, &noisy, &clean, &noise, &sigma).max().double_value(&[]);
                assert!(largest < 1e-9, "{prediction:?}, {loss:?}: {largest}");
            }
        }
    }

    #[test]
    fn gradients_equal_differences_of_the_loss() {
        let (clean, noise) = (normal(1, &[2, 1, 2, 2]), normal(2, &[2, 1, 2, 2]));
        let sigma = Tensor::from_slice(&[0.3f32, 0.7]);
        for prediction in ALL {
            let config = FlowConfig { prediction, ..FlowConfig::default() };
            let noisy = config.noisy(&clean, &noise, &sigma);
            let output = normal(3, &[2, 1, 2, 2]).set_requires_grad(true);
            let loss = |output: &Tensor| {
                config.loss(output, &noisy, &clean, &noise, &sigma).sum(Kind::Float).double_value(&[])
            };
            config.loss(&output, &noisy, &clean, &noise, &sigma).sum(Kind::Float).backward();
            let step = Tensor::zeros_like(&output).detach();
            let _ = step.view([-1]).get(5).fill_(1e-2);
            let difference = tch::no_grad(|| (loss(&(&output + &step)) - loss(&(&output - &step))) / 2e-2);
            let gradient = output.grad().view([-1]).double_value(&[5]);
            assert!(
                (difference - gradient).abs() < 1e-2 * gradient.abs().max(1.0),
                "{difference} {gradient}"
            );
        }
    }

    #[test]
    fn noise_levels_follow_the_logistic_normal_distribution_or_are_uniform() {
        let config = FlowConfig { logit_mean: 0.3, ..FlowConfig::default() };
        let at = |normal| config.sigma(NoiseDraw { uniform: 0.2, normal });
        assert!((at(0.0) - 0.574_442_5).abs() < 1e-6 && at(-9.0) < 1e-3 && at(9.0) > 0.999);
        let uniform = FlowConfig { logit_std: 0.0, ..config };
        assert_eq!(uniform.sigma(NoiseDraw { uniform: 0.2, normal: 5.0 }), 0.2);
    }
}
