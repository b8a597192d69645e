//! The noise schedule of training: betas, `alphas_cumprod`, and noisy samples at training timesteps.

use super::SchedulerKind;
use super::settings::{BetaSchedule, Settings};
use crate::{Error, Result};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// The largest beta of the schedules that are given by alphas (Nichol and Dhariwal 2021).
const MAX_BETA: f64 = 0.999;

/// How much of x0 is left at each training timestep: `alphas_cumprod`, `[N]` in f32, on the CPU.
///
/// A noisy sample is `sqrt(alphas_cumprod[t]) x0 + sqrt(1 - alphas_cumprod[t]) noise`.
#[derive(Debug)]
pub struct NoiseSchedule {
    /// `[N]`, falling from nearly 1 to nearly 0, or to 0 with `rescale_betas_zero_snr`.
    pub alphas_cumprod: Tensor,
}

impl NoiseSchedule {
    pub(super) fn new(kind: SchedulerKind, settings: &Settings) -> Result<Self> {
        let mut betas = betas(kind, settings)?;
        let (least, most) = (betas.min().double_value(&[]), betas.max().double_value(&[]));
        check_betas(least, most)?;
        if settings.rescale_betas_zero_snr {
            betas = zero_terminal_snr(&betas);
        }
        let alphas_cumprod = (1f64 - betas).cumprod(0, Kind::Float);
        if alphas_cumprod.isfinite().all().int64_value(&[]) == 0 {
            let count = settings.num_train_timesteps;
            return Err(Error::Scheduler(format!(
                "the betas from {least} to {most} of {count} training timesteps cannot be rescaled to zero \
                 terminal SNR: set rescale_betas_zero_snr to false"
            )));
        }
        Ok(Self { alphas_cumprod })
    }

    /// The number of training timesteps N.
    pub fn len(&self) -> usize {
        self.alphas_cumprod.size()[0] as usize
    }

    /// False: a schedule has at least one timestep.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `original` `[B, ...]` with `noise` of the same shape, at `timesteps` `[B]` or `[1]` (i64).
    pub fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
        let (alpha, sigma) = self.weights(original, timesteps);
        alpha * original + sigma * noise
    }

    /// The target of `v_prediction`: alpha noise - sigma x0. Shapes as for [`add_noise`](Self::add_noise).
    pub fn velocity(&self, original: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
        let (alpha, sigma) = self.weights(original, timesteps);
        alpha * noise - sigma * original
    }

    /// The ratio of signal to noise `alphas_cumprod / (1 - alphas_cumprod)` at `timesteps` `[B]` (i64): `[B]`
    /// in f32, on the device of `timesteps`.
    pub fn snr(&self, timesteps: &Tensor) -> Tensor {
        let alphas = self.alphas_cumprod.to_device(timesteps.device()).index_select(0, timesteps);
        &alphas / (1f64 - &alphas)
    }

    /// The weights of x0 and of the noise, `[B, 1, ...]`. `alphas_cumprod` takes the kind of `like` before
    /// the root, as in diffusers: in bf16 a weight differs from the rounded f32 weight.
    fn weights(&self, like: &Tensor, timesteps: &Tensor) -> (Tensor, Tensor) {
        let mut shape = vec![1; like.dim()];
        shape[0] = -1;
        let alphas = self.alphas_cumprod.to_device(like.device()).to_kind(like.kind());
        let alphas = alphas.index_select(0, &timesteps.to_device(like.device())).view(shape.as_slice());
        (alphas.sqrt(), (1f64 - &alphas).sqrt())
    }

    /// `alphas_cumprod` as numbers, for the schedulers.
    pub(super) fn to_vec(&self) -> Vec<f32> {
        self.alphas_cumprod.iter::<f64>().map(|values| values.map(|a| a as f32).collect()).unwrap_or_default()
    }
}

/// `alphas_cumprod` for a sampler over sigma, sqrt((1 - a) / a): with zero terminal SNR the last is a small
/// number in place of 0, so that its sigma is finite.
pub(super) fn alphas_for_sigmas(kind: SchedulerKind, settings: &Settings) -> Result<Vec<f32>> {
    let mut alphas = NoiseSchedule::new(kind, settings)?.to_vec();
    if let (true, Some(last)) = (settings.rescale_betas_zero_snr, alphas.last_mut()) {
        *last = 2f32.powi(-24);
    }
    Ok(alphas)
}

fn betas(kind: SchedulerKind, settings: &Settings) -> Result<Tensor> {
    let count = settings.num_train_timesteps;
    if let Some(trained) = &settings.trained_betas {
        if trained.len() != count {
            return Err(Error::Scheduler(format!(
                "trained_betas has {} values for num_train_timesteps = {count}",
                trained.len()
            )));
        }
        return Ok(Tensor::from_slice(trained).to_kind(Kind::Float));
    }
    let (start, end) = (settings.beta_start, settings.beta_end);
    check_betas(start.min(end), start.max(end))?;
    let line = |from: f64, to: f64| Tensor::linspace(from, to, count as i64, (Kind::Float, Device::Cpu));
    match (settings.beta_schedule, kind) {
        (BetaSchedule::Linear, _) => Ok(line(start, end)),
        (BetaSchedule::ScaledLinear, _) => Ok(line(start.sqrt(), end.sqrt()).square()),
        (BetaSchedule::SquaredcosCapV2, _) => {
            Ok(betas_of(count, |t| ((t + 0.008) / 1.008 * PI / 2.0).cos().powi(2)))
        }
        (BetaSchedule::Sigmoid, SchedulerKind::Ddpm) => Ok(line(-6.0, 6.0).sigmoid() * (end - start) + start),
        (BetaSchedule::Laplace, SchedulerKind::Ddpm) => Ok(betas_of(count, |t| {
            let log_snr = -0.5 * (0.5 - t).signum() * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln();
            (log_snr.exp() / (1.0 + log_snr.exp())).sqrt()
        })),
        (BetaSchedule::Exp, SchedulerKind::Heun) => Ok(betas_of(count, |t| (-12.0 * t).exp())),
        (other, _) => Err(Error::Scheduler(format!(
            "{kind} has no beta_schedule {other:?}: all classes know linear, scaled_linear and \
             squaredcos_cap_v2; DDPMScheduler also sigmoid and laplace, HeunDiscreteScheduler also exp"
        ))),
    }
}

fn check_betas(least: f64, most: f64) -> Result<()> {
    if least >= 0.0 && most < 1.0 {
        return Ok(());
    }
    Err(Error::Scheduler(format!("the betas run from {least} to {most}: use 0 to below 1")))
}

/// The betas whose cumulative product of 1 - beta is `alpha_bar`, a function of the time from 0 to 1.
fn betas_of(count: usize, alpha_bar: impl Fn(f64) -> f64) -> Tensor {
    let time = |step: usize| step as f64 / count as f64;
    let betas: Vec<f64> = (0..count)
        .map(|step| (1.0 - alpha_bar(time(step + 1)) / alpha_bar(time(step))).min(MAX_BETA))
        .collect();
    Tensor::from_slice(&betas).to_kind(Kind::Float)
}

/// Betas whose last `alphas_cumprod` is 0, and whose first is kept (Lin et al. 2023, algorithm 1): the
/// sampler then starts from the pure noise that training ends with.
fn zero_terminal_snr(betas: &Tensor) -> Tensor {
    let roots = (1f64 - betas).cumprod(0, Kind::Float).sqrt();
    let (first, last) = (roots.get(0), roots.get(-1));
    let scaled = (&roots - &last) * (&first / (&first - &last));
    let alphas_cumprod = scaled.square();
    let count = alphas_cumprod.size()[0];
    let ratios = alphas_cumprod.narrow(0, 1, count - 1) / alphas_cumprod.narrow(0, 0, count - 1);
    1f64 - Tensor::cat(&[alphas_cumprod.narrow(0, 0, 1), ratios], 0)
}
