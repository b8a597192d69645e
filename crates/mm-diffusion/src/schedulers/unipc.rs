//! UniPC: DPM-Solver's exponential integrator as a predictor, and a corrector that takes the last step again
//! once the model's output at its end is known (Zhao et al. 2023, "UniPC", algorithms 5 to 8).

use super::alphas::in_f32;
use super::betas::alphas_for_sigmas;
use super::calls::CallCounter;
use super::dpm_multistep::{log_ratio, noised, weights};
use super::settings::{FinalSigmas, Settings, SolverType};
use super::sigmas::{self, Levels, TrainingSigmas};
use super::spacing::{self, linspace};
use super::{Scheduler, SchedulerKind, prediction};
use crate::{Error, Result};
use tch::Tensor;

/// A flow's first sigma is kept this far from 1, where lambda is minus infinity.
const FLOW_MARGIN: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct UniPc {
    levels: Levels,
    settings: Settings,
    counter: CallCounter,
    /// x0 of the last calls, the newest first; at most `solver_order`.
    originals: Vec<Tensor>,
    /// The corrected sample that the last step started from, and the step's order.
    last_step: Option<(Tensor, usize)>,
}

impl UniPc {
    pub fn new(settings: Settings, steps: usize, mu: Option<f64>) -> Result<Self> {
        check(&settings)?;
        let levels = levels(&settings, steps, mu)?;
        let counter = CallCounter::new(levels.timesteps.len());
        Ok(Self { levels, settings, counter, originals: vec![], last_step: None })
    }

    /// The step from `start`, before call `from`, to the next sigma. Predicts from the estimates of x0 up to
    /// call `from`, or corrects with the estimate `arrived` at the end of the step.
    fn update(&self, start: &Tensor, from: usize, order: usize, arrived: Option<&Tensor>) -> Tensor {
        let flow = self.settings.use_flow_sigmas;
        let lambda = |call: usize| log_ratio(self.levels.sigmas[call], flow);
        let (alpha, sigma) = weights(self.levels.sigmas[from + 1], flow);
        let (_, sigma_from) = weights(self.levels.sigmas[from], flow);
        let h = lambda(from + 1) - lambda(from);
        let expm1 = (-h).exp_m1();
        // B(h) of the paper's two variants.
        let b = if self.settings.solver_type == SolverType::Bh1 { -h } else { expm1 };

        let newest = &self.originals[0];
        let ratios: Vec<f64> =
            (1..order).map(|back| (lambda(from - back) - lambda(from)) / h).chain([1.0]).collect();
        let slopes = (1..order).map(|back| (&self.originals[back] - newest) / ratios[back - 1]);
        let slopes = slopes.chain(arrived.map(|arrived| arrived - newest));
        let shares = match (order, arrived) {
            // Fixed for these orders (section 3.2).
            (1, _) | (2, None) => vec![0.5],
            (_, Some(_)) => shares(&ratios, h, b),
            (_, None) => shares(&ratios[..order - 1], h, b),
        };
        let next = start * (sigma / sigma_from) - newest * (alpha * expm1);
        let residual = slopes.zip(shares).map(|(slope, share)| slope * share).reduce(|a, b| a + b);
        match residual {
            Some(residual) => next - residual * (alpha * b),
            None => next,
        }
    }
}

impl Scheduler for UniPc {
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
        _noise: &mut dyn FnMut() -> Tensor,
    ) -> Result<Tensor> {
        self.counter.check(model_output, call, sample)?;
        let kind = sample.kind();
        let original = self.pred_original_sample(model_output, call, sample);
        let original = prediction::limited(&self.settings, original);
        let (_, mut sample) = in_f32(model_output, sample);
        if let Some((start, order)) = self.last_step.take()
            && !self.settings.disable_corrector.contains(&(call - 1))
        {
            sample = self.update(&start, call - 1, order, Some(&original));
        }
        self.originals.insert(0, original);
        self.originals.truncate(self.settings.solver_order);
        let calls_left = self.levels.timesteps.len() - call;
        let most = if self.settings.lower_order_final { calls_left } else { self.settings.solver_order };
        let order = most.min(self.originals.len());
        let next = self.update(&sample, call, order, None);
        self.last_step = Some((sample, order));
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
        self.last_step = None;
        self.counter.begin(call)
    }
}

/// The weights of the slopes at the `ratios` of the step h: the solution of sum(share ratio^k) = b_k
/// (theorem 3.1), k from 0.
fn shares(ratios: &[f64], h: f64, b: f64) -> Vec<f64> {
    let order = ratios.len();
    let mut phi = (-h).exp_m1() / -h - 1.0;
    let mut factorial = 1.0;
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(order);
    for power in 0..order {
        let mut row: Vec<f64> = ratios.iter().map(|ratio| ratio.powi(power as i32)).collect();
        row.push(phi * factorial / b);
        rows.push(row);
        factorial *= (power + 2) as f64;
        phi = phi / -h - factorial.recip();
    }
    solved(rows)
}

/// Gaussian elimination with pivoting; the last column is the right-hand side.
fn solved(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let count = rows.len();
    for column in 0..count {
        let pivot = (column..count).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column] / pivot[column];
            for (value, of_pivot) in row.iter_mut().zip(&pivot) {
                *value -= factor * of_pivot;
            }
        }
    }
    rows.iter().enumerate().map(|(index, row)| row[count] / row[index]).collect()
}

/// Refuses the settings that are not implemented.
fn check(settings: &Settings) -> Result<()> {
    let refuse = |problem: &str| Err(Error::Scheduler(format!("UniPCMultistepScheduler: {problem}")));
    if !settings.predict_x0 {
        return refuse("predict_x0 = false is not supported: set it to true");
    }
    if settings.solver_p.is_some() {
        return refuse("solver_p, another scheduler as the predictor, is not supported: remove it");
    }
    if !(1..=3).contains(&settings.solver_order) {
        return refuse(&format!("solver_order is {}: use 1, 2 or 3", settings.solver_order));
    }
    if !settings.lower_order_final
        && settings.solver_order > 1
        && settings.final_sigmas_type == FinalSigmas::Zero
    {
        return refuse(
            "the step to sigma 0 has order 1 only: set lower_order_final, or final_sigmas_type = sigma_min",
        );
    }
    if settings.shift_terminal.is_some() && !settings.use_flow_sigmas {
        return refuse("shift_terminal is for use_flow_sigmas only");
    }
    Ok(())
}

fn levels(settings: &Settings, steps: usize, mu: Option<f64>) -> Result<Levels> {
    let alphas_cumprod = alphas_for_sigmas(SchedulerKind::UniPc, settings)?;
    let training = TrainingSigmas::new(&alphas_cumprod);
    let trained = settings.num_train_timesteps as f64;
    let bounds = (training.min(), training.max());
    let mut last_sigma = None;
    let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) =
        if let Some(mut respaced) = sigmas::respaced(settings, bounds, steps)? {
            let timesteps = match (settings.use_karras_sigmas, settings.use_flow_sigmas) {
                (true, true) => {
                    respaced = respaced.into_iter().map(|sigma| sigma / (sigma + 1.0)).collect();
                    respaced.iter().map(|sigma| sigma * trained).collect()
                }
                (true, false) => {
                    respaced.iter().map(|&sigma| training.timestep_of(sigma).round_ties_even()).collect()
                }
                (false, _) => respaced.iter().map(|&sigma| training.timestep_of(sigma)).collect(),
            };
            last_sigma = respaced.last().copied();
            (timesteps, respaced)
        } else if settings.use_flow_sigmas {
            let flow = flow_sigmas(settings, steps, mu)?;
            last_sigma = flow.last().copied();
            (flow.iter().map(|sigma| sigma * trained).collect(), flow)
        } else {
            let indices = spacing::solver_indices(settings, steps, settings.num_train_timesteps)?;
            let timesteps: Vec<f64> = indices.into_iter().map(|t| t as f64).collect();
            let sigmas = timesteps.iter().map(|&t| training.at(t)).collect();
            (timesteps, sigmas)
        };
    sigmas.push(match settings.final_sigmas_type {
        FinalSigmas::Zero => 0.0,
        FinalSigmas::SigmaMin => last_sigma.unwrap_or_else(|| training.min()),
    });
    Levels::new(timesteps.into_iter().map(f64::trunc).collect(), sigmas)
}

fn flow_sigmas(settings: &Settings, steps: usize, mu: Option<f64>) -> Result<Vec<f64>> {
    let mut line = linspace(1.0, 1.0 / settings.num_train_timesteps as f64, steps + 1);
    line.truncate(steps);
    let shift = sigmas::shift(settings, settings.flow_shift, mu)?;
    let mut flow: Vec<f64> = line.into_iter().map(|sigma| sigmas::shifted(shift, sigma)).collect();
    if let Some(terminal) = settings.shift_terminal.filter(|&terminal| terminal != 0.0) {
        sigmas::stretched(&mut flow, terminal)?;
    }
    if (flow[0] - 1.0).abs() < FLOW_MARGIN {
        flow[0] -= FLOW_MARGIN;
    }
    Ok(flow)
}
