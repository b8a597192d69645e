//! DPM-Solver++: an exponential integrator for the diffusion ODE in x0, of order 1 to 3, and its SDE form of
//! order 1 and 2 (Lu et al. 2022, "DPM-Solver++", sections 4 and 6).
//!
//! lambda = ln(alpha / sigma) is the time of the solver: between two calls it advances by h.

use super::alphas::in_f32;
use super::betas::alphas_for_sigmas;
use super::calls::{CallCounter, draw};
use super::settings::{Algorithm, BetaSchedule, FinalSigmas, Settings, SolverType, VarianceType};
use super::sigmas::{self, Levels, TrainingSigmas};
use super::spacing::{self, linspace};
use super::{Scheduler, SchedulerKind, prediction};
use crate::{Error, Result};
use tch::Tensor;

/// Runs shorter than this end with lower orders (`lower_order_final`).
const SHORT_RUN: usize = 15;

#[derive(Debug)]
pub(super) struct DpmMultistep {
    levels: Levels,
    settings: Settings,
    counter: CallCounter,
    /// x0 of the last calls, the newest first; at most `solver_order`.
    originals: Vec<Tensor>,
}

impl DpmMultistep {
    pub fn new(settings: Settings, steps: usize, mu: Option<f64>) -> Result<Self> {
        check(&settings)?;
        let levels = levels(&settings, steps, mu)?;
        let counter = CallCounter::new(levels.timesteps.len());
        Ok(Self { levels, settings, counter, originals: vec![] })
    }

    /// The order of the step after `call`.
    fn solver_order(&self, call: usize) -> usize {
        let settings = &self.settings;
        let calls = self.levels.timesteps.len();
        let short = settings.lower_order_final && calls < SHORT_RUN;
        let first_at_last =
            settings.euler_at_final || short || settings.final_sigmas_type == FinalSigmas::Zero;
        let most = match calls - call {
            1 if first_at_last => 1,
            2 if short => 2,
            _ => settings.solver_order,
        };
        most.min(self.originals.len())
    }

    /// The step of `order` from `sample`, from the estimates of x0 so far.
    fn update(&self, sample: &Tensor, call: usize, order: usize, noise: Option<Tensor>) -> Tensor {
        let flow = self.settings.use_flow_sigmas;
        let lambda = |call: usize| log_ratio(self.levels.sigmas[call], flow);
        let (alpha, sigma) = weights(self.levels.sigmas[call + 1], flow);
        let (_, sigma_now) = weights(self.levels.sigmas[call], flow);
        let h = lambda(call + 1) - lambda(call);
        // The SDE's noise decays x twice as fast.
        let sde = noise.is_some();
        let kh = if sde { 2.0 * h } else { h };
        let decay = if sde { (-h).exp() } else { 1.0 };
        let e = (-kh).exp_m1(); // -1 at the final sigma 0, where h is infinite
        let newest = &self.originals[0];
        let mut next = sample * (sigma / sigma_now * decay) - newest * (alpha * e);

        // The slope of x0 over lambda, times h. No step, no slope: h is 0 where the last sigma stands twice.
        if order > 1 && h != 0.0 {
            let r0 = (lambda(call) - lambda(call - 1)) / h;
            let newer = (newest - &self.originals[1]) / r0;
            let by_heun = alpha * (e / kh + 1.0);
            if order == 2 {
                let weight = match self.settings.solver_type {
                    SolverType::Heun => by_heun,
                    _ => -0.5 * alpha * e,
                };
                next += newer * weight;
            } else {
                let r1 = (lambda(call - 1) - lambda(call - 2)) / h;
                let change = &newer - (&self.originals[1] - &self.originals[2]) / r1;
                let slope = newer + &change * (r0 / (r0 + r1));
                let curvature = change / (r0 + r1);
                next += slope * by_heun - curvature * (alpha * ((e + h) / (h * h) - 0.5));
            }
        }
        match noise {
            Some(noise) => next + noise * (sigma * (-e).sqrt()),
            None => next,
        }
    }
}

impl Scheduler for DpmMultistep {
    fn timesteps(&self) -> &[f64] {
        &self.levels.timesteps
    }

    fn sigmas(&self) -> &[f64] {
        &self.levels.sigmas
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        call: usize,
        sample: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor> {
        self.counter.check(model_output, call, sample)?;
        let kind = sample.kind();
        let original = self.pred_original_sample(model_output, call, sample);
        let original = prediction::limited(&self.settings, original);
        let (_, sample) = in_f32(model_output, sample);
        let noise = match self.settings.algorithm_type {
            Algorithm::SdeDpmSolverPlusPlus => Some(draw(noise, &sample)?),
            _ => None,
        };
        self.originals.insert(0, original);
        self.originals.truncate(self.settings.solver_order);
        let next = self.update(&sample, call, self.solver_order(call), noise);
        self.counter.advance();
        Ok(next.to_kind(kind))
    }

    fn pred_original_sample(&self, model_output: &Tensor, call: usize, sample: &Tensor) -> Tensor {
        let (output, sample) = in_f32(model_output, sample);
        let (alpha, sigma) = weights(self.levels.sigmas[call], self.settings.use_flow_sigmas);
        prediction::original(self.settings.prediction_type, &output, &sample, alpha, sigma)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, call: usize) -> Tensor {
        noised(original, noise, self.levels.sigmas[call], self.settings.use_flow_sigmas)
    }

    fn set_begin_index(&mut self, call: usize) -> Result<()> {
        self.originals.clear();
        self.counter.begin(call)
    }
}

/// alpha and sigma of a sample alpha x0 + sigma noise with alpha^2 + sigma^2 = 1, or of a flow.
pub(super) fn weights(sigma: f64, flow: bool) -> (f64, f64) {
    if flow {
        return (1.0 - sigma, sigma);
    }
    let alpha = (sigma * sigma + 1.0).sqrt().recip();
    (alpha, sigma * alpha)
}

/// lambda = ln(alpha / sigma).
pub(super) fn log_ratio(sigma: f64, flow: bool) -> f64 {
    let (alpha, sigma) = weights(sigma, flow);
    alpha.ln() - sigma.ln()
}

/// alpha `original` + sigma `noise`, computed in the kind of `original`.
pub(super) fn noised(original: &Tensor, noise: &Tensor, sigma: f64, flow: bool) -> Tensor {
    let sigma = Tensor::from_slice(&[sigma]).to_kind(original.kind()).to_device(original.device());
    let (alpha, sigma) = if flow {
        (1.0 - &sigma, sigma)
    } else {
        let alpha = (sigma.square() + 1.0).sqrt().reciprocal();
        (alpha.shallow_clone(), sigma * alpha)
    };
    alpha * original + sigma * noise
}

/// Refuses the settings that are not implemented.
fn check(settings: &Settings) -> Result<()> {
    let refuse = |problem: String| Err(Error::Scheduler(format!("DPMSolverMultistepScheduler: {problem}")));
    let order = settings.solver_order;
    match settings.algorithm_type {
        Algorithm::DpmSolver | Algorithm::SdeDpmSolver => {
            return refuse(
                "the algorithm_type dpmsolver and sde-dpmsolver are not supported: use dpmsolver++ or \
                 sde-dpmsolver++"
                    .to_owned(),
            );
        }
        Algorithm::SdeDpmSolverPlusPlus if order > 2 => {
            return refuse(format!("solver_order is {order}: sde-dpmsolver++ has orders 1 and 2"));
        }
        _ => {}
    }
    if !(1..=3).contains(&order) {
        return refuse(format!("solver_order is {order}: use 1, 2 or 3"));
    }
    if matches!(settings.variance_type, Some(VarianceType::Learned | VarianceType::LearnedRange)) {
        return refuse("a learned variance_type is not supported: the model's output has no variance".into());
    }
    Ok(())
}

fn levels(settings: &Settings, steps: usize, mu: Option<f64>) -> Result<Levels> {
    let alphas_cumprod = alphas_for_sigmas(SchedulerKind::DpmMultistep, settings)?;
    let training = TrainingSigmas::new(&alphas_cumprod);
    let trained = settings.num_train_timesteps as f64;
    let bounds = (training.min(), training.max());
    let on_grid = |sigma: &f64| {
        let timestep = training.timestep_of(*sigma);
        // The cosine schedule has steep ends, where diffusers does not round.
        if settings.beta_schedule == BetaSchedule::SquaredcosCapV2 {
            timestep
        } else {
            timestep.round_ties_even()
        }
    };
    let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = if let Some(respaced) =
        sigmas::respaced(settings, bounds, steps)?
    {
        let timesteps = if settings.use_karras_sigmas {
            respaced.iter().map(on_grid).collect()
        } else {
            respaced.iter().map(|&sigma| training.timestep_of(sigma)).collect()
        };
        (timesteps, respaced)
    } else if settings.use_lu_lambdas {
        let respaced = linspace(bounds.1.ln(), bounds.0.ln(), steps);
        let respaced: Vec<f64> = respaced.into_iter().map(f64::exp).collect();
        (respaced.iter().map(on_grid).collect(), respaced)
    } else if settings.use_flow_sigmas {
        let shift = sigmas::shift(settings, settings.flow_shift, mu)?;
        let alphas = linspace(1.0, 1.0 / trained, steps + 1);
        let shifted = alphas.into_iter().skip(1).rev().map(|alpha| sigmas::shifted(shift, 1.0 - alpha));
        let shifted: Vec<f64> = shifted.collect();
        (shifted.iter().map(|sigma| sigma * trained).collect(), shifted)
    } else {
        let indices = spacing::solver_indices(settings, steps, timesteps_in_use(settings, &alphas_cumprod))?;
        let timesteps: Vec<f64> = indices.into_iter().map(|t| t as f64).collect();
        let sigmas = timesteps.iter().map(|&t| training.at(t)).collect();
        (timesteps, sigmas)
    };
    sigmas.push(match settings.final_sigmas_type {
        FinalSigmas::Zero => 0.0,
        FinalSigmas::SigmaMin => training.min(),
    });
    Levels::new(timesteps.into_iter().map(f64::trunc).collect(), sigmas)
}

/// The number of training timesteps whose lambda is at least `lambda_min_clipped`: with the cosine schedule
/// the last have lambdas near minus infinity.
fn timesteps_in_use(settings: &Settings, alphas_cumprod: &[f32]) -> usize {
    let Some(least) = settings.lambda_min_clipped else { return alphas_cumprod.len() };
    let lambda = |a: f32| f64::from(a.sqrt().ln() - (1.0 - a).sqrt().ln());
    alphas_cumprod.iter().take_while(|&&a| lambda(a) >= least).count()
}
