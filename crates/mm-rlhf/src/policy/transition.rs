//! One step of a sampler with noise, as a normal distribution.

use super::mean_per_image;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_2, TAU};
use tch::{Kind, Tensor};

/// How a step from one level of noise to the next is drawn: the config value `[rl.noise]`.
///
/// Each is a normal distribution with a mean that is a weighted sum of the sample and the model's prediction.
/// For flows, s and s' are the shares of noise before and after the step, and ds = s' - s is negative.
///
/// ```
/// use mm_rlhf::policy::Transition;
///
/// let noise: Transition = toml::from_str("kind = 'flow_sde'\nnoise = 0.7")?;
/// assert!(noise == Transition::FlowSde { noise: 0.7 } && noise.is_of_flow());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transition {
    /// DDIM with noise (Song et al. 2021, equations 12 and 16), the policy of DDPO (Black et al. 2023,
    /// section 4.3).
    Ddim {
        /// The share of DDPM's deviation, above 0 and at most 1; DDPO's is 1.
        eta: f64,
    },
    /// The stochastic differential equation of Flow-GRPO (Liu et al. 2025, section 4.2), with the deviation
    /// a sqrt(s / (1 - s)) sqrt(-ds).
    FlowSde {
        /// The factor a, above 0; Flow-GRPO's is 0.7.
        noise: f64,
    },
    /// The same equation with the deviation eta sqrt(-ds) (DanceGRPO, Xue et al. 2025, section 3).
    DanceGrpo {
        /// The factor eta, above 0; DanceGRPO's is 0.3.
        eta: f64,
    },
    /// Coefficients-preserving sampling (Wang & Yu 2025): a part of the predicted noise is exchanged for new
    /// noise, so that the image has as much noise as its level says. The deviation is s' sin(a pi / 2).
    Cps {
        /// The share a, above 0 and at most 1; Flow-GRPO's is 0.8.
        noise: f64,
    },
}

/// The levels between which a step goes: `alphas_cumprod` of a diffusion process ([`Transition::Ddim`]), or
/// the shares of noise of a flow.
///
/// A diffusion process goes up from `now`, above 0, to `next`. The `next` of its last step is
/// `alphas_cumprod[0]`, as in DDPO: with 1 the step would have no noise and no probability. A flow goes down
/// from `now`, above 0. Its last step goes to 0 and is not trained: [`Transition::Cps`] has no noise there,
/// and the noise of the other two stays in the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The level of the sample.
    pub now: f64,
    /// The level after the step.
    pub next: f64,
}

/// A normal distribution with one deviation for all elements.
#[derive(Debug)]
pub struct StepDistribution {
    /// The mean, `[N, C, h, w]` in f32.
    pub mean: Tensor,
    /// The deviation.
    pub std: f64,
}

/// The mean of a step is `of_sample` times the sample plus `of_prediction` times the prediction. Summed up in
/// f64 before any tensor is touched, nothing cancels in f32.
struct Coefficients {
    of_sample: f64,
    of_prediction: f64,
    std: f64,
}

impl Transition {
    /// Whether the model predicts the velocity of a flow; otherwise the noise of a diffusion process.
    pub fn is_of_flow(&self) -> bool {
        match self {
            Self::Ddim { .. } => false,
            Self::FlowSde { .. } | Self::DanceGrpo { .. } | Self::Cps { .. } => true,
        }
    }

    /// Checks the factor of the noise.
    ///
    /// # Errors
    /// A message that names the key, if its value is out of range.
    pub fn check(&self) -> Result<(), String> {
        let (key, value, most) = match *self {
            Self::Ddim { eta } => ("eta", eta, 1.0),
            Self::FlowSde { noise } => ("noise", noise, f64::MAX),
            Self::DanceGrpo { eta } => ("eta", eta, f64::MAX),
            Self::Cps { noise } => ("noise", noise, 1.0),
        };
        if value > 0.0 && value <= most {
            return Ok(());
        }
        let bound = if most == 1.0 { " and at most 1" } else { "" };
        Err(format!("`{key}` must be above 0{bound}, is {value}"))
    }

    /// The distribution of the next image. `sample` is `[N, C, h, w]`, `prediction` of the same shape is the
    /// noise ([`Transition::Ddim`]) or the velocity e - x0 (flows). Computed in f32 whatever their kinds; the
    /// mean has gradients to both.
    pub fn step(&self, sample: &Tensor, prediction: &Tensor, levels: Levels) -> StepDistribution {
        let Coefficients { of_sample, of_prediction, std } = self.coefficients(levels);
        let mean = sample.to_kind(Kind::Float) * of_sample + prediction.to_kind(Kind::Float) * of_prediction;
        StepDistribution { mean, std }
    }

    fn coefficients(&self, Levels { now, next }: Levels) -> Coefficients {
        match *self {
            Self::Ddim { eta } => {
                let std = eta * ((1.0 - next) / (1.0 - now) * (1.0 - now / next)).sqrt();
                // x0 is (x - sqrt(1 - now) e) / sqrt(now).
                let of_sample = (next / now).sqrt();
                // At eta = 1 and little noise the difference may round to below 0.
                let direction = (1.0 - next - std * std).max(0.0).sqrt();
                Coefficients { of_sample, of_prediction: direction - of_sample * (1.0 - now).sqrt(), std }
            }
            Self::FlowSde { noise } => {
                // At pure noise, up to the rounding of f32, the diffusion is infinite: Flow-GRPO takes the
                // share of the image of the next level there.
                let left = if now > 1.0 - 1e-6 { 1.0 - next } else { 1.0 - now };
                flow_sde(noise * (now / left).sqrt(), now, next)
            }
            Self::DanceGrpo { eta } => flow_sde(eta, now, next),
            Self::Cps { noise } => {
                let (new, kept) = (noise * FRAC_PI_2).sin_cos();
                // x0 is z - s v, and e is z + (1 - s) v.
                let (of_image, of_noise) = (1.0 - next, next * kept);
                Coefficients {
                    of_sample: of_image + of_noise,
                    of_prediction: of_noise * (1.0 - now) - of_image * now,
                    std: next * new,
                }
            }
        }
    }

    /// The log-probability of the images `next` `[N, C, h, w]`: `[N]`, f32. No gradient flows to `next`.
    ///
    /// It is the mean over the elements of an image, not their sum as in the papers. So it is in the authors'
    /// code of all four, which their clip ranges (1e-4) belong to; a sum over 16,384 elements overflows the
    /// ratio of two probabilities. That of [`Transition::Cps`] is -(next - mean)^2, without the division by
    /// the deviation.
    pub fn log_prob(&self, next: &Tensor, step: &StepDistribution) -> Tensor {
        let errors = mean_per_image(&(next.to_kind(Kind::Float).detach() - &step.mean).square());
        match self {
            Self::Cps { .. } => -errors,
            Self::Ddim { .. } | Self::FlowSde { .. } | Self::DanceGrpo { .. } => {
                errors / (-2.0 * step.std * step.std) - (step.std.ln() + 0.5 * TAU.ln())
            }
        }
    }

    /// The divergence of the step from that of the reference policy with the same deviation: the mean over
    /// the elements of an image of (mean - mean_ref)^2 / (2 std^2), `[N]`, f32 (Flow-GRPO, section 4). No
    /// gradient flows to the reference. DDPO has no such term; for [`Transition::Ddim`] it is an extension.
    ///
    /// Flow-GRPO's code leaves the length of the step out of the deviation, so that its weight 0.04 is about
    /// 0.004 here.
    pub fn kl(&self, step: &StepDistribution, reference: &StepDistribution) -> Tensor {
        mean_per_image(&(&step.mean - reference.mean.detach()).square()) / (2.0 * step.std * step.std)
    }
}

/// An Euler-Maruyama step of dz = (v - g^2 / 2 score) ds + g dw, with the score -(z + (1 - s) v) / s of the
/// flow.
fn flow_sde(diffusion: f64, now: f64, next: f64) -> Coefficients {
    let ds = next - now;
    let correction = diffusion * diffusion / (2.0 * now);
    Coefficients {
        of_sample: 1.0 + correction * ds,
        of_prediction: (1.0 + correction * (1.0 - now)) * ds,
        std: diffusion * (-ds).sqrt(),
    }
}

impl StepDistribution {
    /// The next image for standard normal `noise`, `[N, C, h, w]`.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + noise * self.std
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: [Levels; 3] =
        [Levels { now: 1.0, next: 0.9 }, Levels { now: 0.6, next: 0.45 }, Levels { now: 0.1, next: 0.02 }];

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    /// The weights of the image and of the noise in the mean, for the true velocity of a flow.
    fn of_parts(coefficients: &Coefficients, now: f64) -> (f64, f64) {
        let Coefficients { of_sample, of_prediction, .. } = coefficients;
        (of_sample * (1.0 - now) - of_prediction, of_sample * now + of_prediction)
    }

    #[test]
    fn cps_keeps_the_share_of_the_image_and_the_variance_of_the_noise() {
        for noise in [0.1, 0.8, 1.0] {
            for levels in FLOW {
                let found = Transition::Cps { noise }.coefficients(levels);
                let (of_image, of_noise) = of_parts(&found, levels.now);
                assert_near(of_image, 1.0 - levels.next);
                assert_near(found.std.powi(2) + of_noise.powi(2), levels.next.powi(2));
                assert!(found.std > 0.0);
            }
        }
    }

    #[test]
    fn flows_without_noise_are_the_euler_step_of_the_differential_equation() {
        for levels in FLOW {
            for policy in [Transition::FlowSde { noise: 0.0 }, Transition::DanceGrpo { eta: 0.0 }] {
                let found = policy.coefficients(levels);
                assert_near(found.of_sample, 1.0);
                assert_near(found.of_prediction, levels.next - levels.now);
                assert_eq!(found.std, 0.0);
            }
        }
    }

    #[test]
    fn ddim_keeps_the_signal_and_has_the_variance_of_its_level_at_any_eta() {
        for (now, next) in [(0.005, 0.02), (0.4, 0.55), (0.9984, 0.9991)] {
            for eta in [0.0, 0.5, 1.0] {
                let found = Transition::Ddim { eta }.coefficients(Levels { now, next });
                // The sample is sqrt(now) x0 + sqrt(1 - now) e.
                assert_near(found.of_sample * f64::sqrt(now), f64::sqrt(next));
                let of_noise = found.of_sample * f64::sqrt(1.0 - now) + found.of_prediction;
                assert_near(found.std.powi(2) + of_noise.powi(2), 1.0 - next);
                assert_eq!(found.std == 0.0, eta == 0.0);
            }
        }
    }

    #[test]
    fn a_step_from_pure_noise_is_finite_and_takes_the_diffusion_of_the_next_level() {
        let found = Transition::FlowSde { noise: 0.7 }.coefficients(FLOW[0]);
        assert_near(found.std, 0.7 * f64::sqrt(1.0 / 0.1) * f64::sqrt(0.1));
        assert!(found.of_sample.is_finite() && found.of_prediction.is_finite());
    }

    #[test]
    fn kinds_are_read_by_name_and_values_out_of_range_are_refused() {
        let read = |toml: &str| toml::from_str::<Transition>(toml);
        for policy in [
            Transition::Ddim { eta: 1.0 },
            Transition::FlowSde { noise: 0.7 },
            Transition::DanceGrpo { eta: 0.3 },
            Transition::Cps { noise: 0.8 },
        ] {
            assert_eq!(read(&toml::to_string(&policy).unwrap()).unwrap(), policy);
            assert_eq!(policy.check(), Ok(()));
        }
        assert_eq!(read("kind = 'dance_grpo'\neta = 2.0").unwrap(), Transition::DanceGrpo { eta: 2.0 });
        assert!(read("kind = 'cps'\neta = 0.5").unwrap_err().to_string().contains("unknown field `eta`"));
        assert!(read("kind = 'sde'").unwrap_err().to_string().contains("unknown variant `sde`"));
        let message = Transition::Cps { noise: 1.5 }.check().unwrap_err();
        assert_eq!(message, "`noise` must be above 0 and at most 1, is 1.5");
        let message = Transition::DanceGrpo { eta: f64::NAN }.check().unwrap_err();
        assert_eq!(message, "`eta` must be above 0, is NaN");
    }
}
