//! Noise levels: sigma of x0 + sigma noise at the training timesteps, between them, and in other spacings.

use super::settings::{FinalSigmas, Interpolation, Settings, TimeShift, TimestepSpacing};
use super::spacing::linspace;
use crate::{Error, Result};
use tch::Tensor;

/// The exponent of Karras et al. 2022, equation 5.
const KARRAS_RHO: f64 = 7.0;

/// The sigmas of the training timesteps, rising.
#[derive(Debug)]
pub(super) struct TrainingSigmas {
    sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

impl TrainingSigmas {
    pub fn new(alphas_cumprod: &[f32]) -> Self {
        let sigmas: Vec<f32> = alphas_cumprod.iter().map(|&a| ((1.0 - a) / a).sqrt()).collect();
        let log_sigmas = sigmas.iter().map(|&sigma| f64::from(sigma).ln() as f32).collect();
        Self { sigmas, log_sigmas }
    }

    pub fn min(&self) -> f64 {
        self.sigmas.first().copied().map_or(0.0, f64::from)
    }

    pub fn max(&self) -> f64 {
        self.sigmas.last().copied().map_or(0.0, f64::from)
    }

    /// The sigma at `timestep`, interpolated (`numpy.interp`).
    pub fn at(&self, timestep: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let low = (timestep.max(0.0) as usize).min(last);
        let (below, above) = (f64::from(self.sigmas[low]), f64::from(self.sigmas[(low + 1).min(last)]));
        (above - below) * (timestep - low as f64).clamp(0.0, 1.0) + below
    }

    /// The timestep whose sigma is `sigma`, interpolated between the logarithms.
    pub fn timestep_of(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.max(1e-10).ln();
        let last = self.log_sigmas.len() - 1;
        let at_most = self.log_sigmas.partition_point(|&low| f64::from(low) <= log_sigma);
        let low = at_most.saturating_sub(1).min(last.saturating_sub(1));
        let high = (low + 1).min(last);
        let step = self.log_sigmas[low] - self.log_sigmas[high];
        let share = ((f64::from(self.log_sigmas[low]) - log_sigma) / f64::from(step)).clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * high as f64
    }

    /// `steps` sigmas from the smallest to the largest, evenly in their logarithms, and one more: the
    /// `log_linear` interpolation, which ignores the timesteps.
    pub fn log_linear(&self, steps: usize) -> Vec<f64> {
        let bounds =
            [self.log_sigmas.last(), self.log_sigmas.first()].map(|x| x.copied().map_or(0.0, f64::from));
        let count = steps as i64 + 1;
        let line = Tensor::linspace(bounds[0], bounds[1], count, (tch::Kind::Float, tch::Device::Cpu)).exp();
        line.iter::<f64>().map(Iterator::collect).unwrap_or_default()
    }
}

/// Karras' spacing from `max` to `min`, which puts more of the steps at low noise.
pub(super) fn karras(min: f64, max: f64, steps: usize) -> Vec<f64> {
    let (low, high) = (min.powf(KARRAS_RHO.recip()), max.powf(KARRAS_RHO.recip()));
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| (high + ramp * (low - high)).powf(KARRAS_RHO)).collect()
}

/// From `max` to `min`, evenly in their logarithms.
pub(super) fn exponential(min: f64, max: f64, steps: usize) -> Vec<f64> {
    linspace(max.ln(), min.ln(), steps).into_iter().map(f64::exp).collect()
}

/// The sigmas of `use_karras_sigmas` or `use_exponential_sigmas` between `bounds` (min, max), or between the
/// settings' `sigma_min` and `sigma_max`; none if the settings ask for neither.
pub(super) fn respaced(settings: &Settings, bounds: (f64, f64), steps: usize) -> Result<Option<Vec<f64>>> {
    if !(settings.use_karras_sigmas || settings.use_exponential_sigmas) {
        return Ok(None);
    }
    let (min, max) = (settings.sigma_min.unwrap_or(bounds.0), settings.sigma_max.unwrap_or(bounds.1));
    if !(min > 0.0 && max >= min && max.is_finite()) {
        return Err(Error::Scheduler(format!("sigmas from {max} down to {min}: both must be above 0")));
    }
    let spacing = if settings.use_karras_sigmas { karras } else { exponential };
    Ok(Some(spacing(min, max, steps)))
}

/// A run's timesteps and sigmas, one sigma more than timesteps, rounded to f32, in which diffusers keeps
/// them.
#[derive(Debug)]
pub(super) struct Levels {
    pub timesteps: Vec<f64>,
    pub sigmas: Vec<f64>,
}

impl Levels {
    pub fn new(mut timesteps: Vec<f64>, mut sigmas: Vec<f64>) -> Result<Self> {
        for value in timesteps.iter_mut().chain(&mut sigmas) {
            *value = rounded(*value);
            if !value.is_finite() {
                return Err(Error::Scheduler(
                    "the settings lead to noise levels that are not finite: check the betas, the shift, mu, \
                     sigma_min and sigma_max"
                        .to_owned(),
                ));
            }
        }
        Ok(Self { timesteps, sigmas })
    }
}

/// The levels of Euler, Euler ancestral, Heun and LMS: from the timesteps `fractions`, or respaced between
/// the first and the last of these.
pub(super) fn levels(settings: &Settings, alphas_cumprod: &[f32], fractions: &[f32]) -> Result<Levels> {
    let training = TrainingSigmas::new(alphas_cumprod);
    let mut timesteps: Vec<f64> = fractions.iter().copied().map(f64::from).collect();
    let mut sigmas: Vec<f64> = match settings.interpolation_type {
        Interpolation::Linear => timesteps.iter().map(|&t| training.at(t)).collect(),
        Interpolation::LogLinear => training.log_linear(timesteps.len()),
    };
    let (max, min) = (sigmas[0], sigmas[sigmas.len() - 1]);
    if let Some(respaced) = respaced(settings, (min, max), timesteps.len())? {
        timesteps = respaced.iter().map(|&sigma| training.timestep_of(sigma)).collect();
        sigmas = respaced;
    }
    sigmas.push(match settings.final_sigmas_type {
        FinalSigmas::Zero => 0.0,
        FinalSigmas::SigmaMin => training.min(),
    });
    Levels::new(timesteps, sigmas)
}

/// The standard deviation that a run over sigma starts with: of the noise alone, or with "leading" spacing,
/// which does not start at the highest training timestep, of the noise and x0 (`init_noise_sigma`).
pub(super) fn init_noise_sigma(settings: &Settings, sigmas: &[f64]) -> f64 {
    let max = sigmas.iter().copied().fold(0.0, f64::max) as f32;
    match settings.timestep_spacing {
        TimestepSpacing::Leading => f64::from((max * max + 1.0).sqrt()),
        _ => f64::from(max),
    }
}

/// `sample` at noise level `sigma` scaled to the standard deviation of the training samples.
pub(super) fn scaled_input(sample: &Tensor, sigma: f64) -> Tensor {
    let sigma = sigma as f32;
    sample / f64::from((sigma * sigma + 1.0).sqrt())
}

/// `original` + `sigma` `noise`, with sigma in the kind of `original`.
pub(super) fn noised(original: &Tensor, noise: &Tensor, sigma: f64) -> Tensor {
    let sigma = Tensor::from_slice(&[sigma]).to_kind(original.kind()).to_device(original.device());
    original + noise * sigma
}

/// The shift of a flow's sigmas: `fixed`, or with `use_dynamic_shifting` e^mu or mu.
pub(super) fn shift(settings: &Settings, fixed: f64, mu: Option<f64>) -> Result<f64> {
    let shift = match (settings.use_dynamic_shifting, mu) {
        (false, _) => fixed,
        (true, Some(mu)) if settings.time_shift_type == TimeShift::Exponential => mu.exp(),
        (true, Some(mu)) => mu,
        (true, None) => {
            return Err(Error::Scheduler(
                "use_dynamic_shifting needs mu: SchedulerConfig::dynamic_shift computes it from the image"
                    .to_owned(),
            ));
        }
    };
    // Larger shifts leave no number between 1 and the next sigma in f32.
    if !(shift > 0.0 && shift < 1e6) {
        return Err(Error::Scheduler(format!("the shift is {shift}: use a number above 0, 1 for no shift")));
    }
    Ok(shift)
}

/// A flow's sigma moved toward more noise: to that of an image `shift` times as large in each direction,
/// where the same noise hides less (Esser et al. 2024, equation 23).
pub(super) fn shifted(shift: f64, sigma: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// Stretches the sigmas of a flow so that the last is `terminal` (`shift_terminal`).
pub(super) fn stretched(sigmas: &mut [f64], terminal: f64) -> Result<()> {
    let last = sigmas.last().copied().unwrap_or(0.0);
    let scale = (1.0 - last) / (1.0 - terminal);
    if !(scale.is_finite() && scale > 0.0) {
        return Err(Error::Scheduler(format!(
            "shift_terminal = {terminal} cannot stretch {} sigmas that end at {last}: use more steps, and a \
             shift_terminal below 1",
            sigmas.len()
        )));
    }
    for sigma in sigmas {
        *sigma = 1.0 - (1.0 - *sigma) / scale;
    }
    Ok(())
}

/// A number rounded to f32.
pub(super) fn rounded(value: f64) -> f64 {
    f64::from(value as f32)
}
