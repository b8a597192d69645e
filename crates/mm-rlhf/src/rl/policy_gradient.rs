//! Policy gradients: trajectories with the probability of each step, and PPO's loss on them.

use super::config::RlConfig;
use super::rollout::Samples;
use crate::policy::{Levels, Transition, deterministic_step, predict, transition_of};
use crate::{Error, Result};
use mm_core::loss::clipped_policy_loss;
use mm_core::{seed, upload};
use mm_diffusion::{DiffusionPipeline, ImageNoise, SamplerCall};
use mm_train::{Loss, MicroBatch, WeightCopy};
use tch::{Kind, Tensor};

/// The steps of a roll-out: which have noise, and which are trained.
pub(super) struct StepPlan {
    calls: Vec<SamplerCall>,
    /// Whether each step has noise.
    has_noise: Vec<bool>,
    /// Whether each step is trained: one with noise.
    is_trained: Vec<bool>,
    transition: Transition,
    guidance_scale: f64,
}

/// A step that is trained: from `sample` to `next`, `[N, C, h, w]`, with its log-probability `[N]`.
#[derive(Debug)]
pub(super) struct TrainedStep {
    call: SamplerCall,
    sample: Tensor,
    next: Tensor,
    log_prob: Tensor,
}

/// How far a ratio may be from 1 before the first update: the rounding of another order of sums.
const ROUNDING: f64 = 1e-5;

impl StepPlan {
    pub fn new(config: &RlConfig, pipeline: &DiffusionPipeline, seed: u64, number: u64) -> Result<Self> {
        let gradient = &config.policy_gradient;
        let calls = pipeline.sampler_calls(config.steps)?;
        let transition = transition_of(gradient.noise, pipeline)?;
        // The last step of a flow ends without noise: it has no density.
        let last = if transition.is_of_flow() { calls.len() - 1 } else { calls.len() };
        let window = match gradient.window {
            None => 0..last,
            Some(length) => {
                let moved = number.checked_div(gradient.window_shift_every).unwrap_or_default() as usize;
                let places = (calls.len() / 2).saturating_sub(gradient.window_start).max(1);
                let start = gradient.window_start + moved % places;
                start..(start + length).min(last)
            }
        };
        let has_noise: Vec<bool> = (0..calls.len()).map(|call| window.contains(&call)).collect();
        let mut is_trained = has_noise.clone();
        if gradient.trained_share < 1.0 {
            let count = (window.len() as f64 * gradient.trained_share).ceil() as usize;
            let draw = |call: usize| seed::derive(seed::derive(seed, "trained", number), "step", call as u64);
            let mut drawn: Vec<usize> = window.collect();
            drawn.sort_unstable_by_key(|&call| draw(call));
            drawn.iter().skip(count).for_each(|&call| is_trained[call] = false);
        }
        Ok(Self { calls, has_noise, is_trained, transition, guidance_scale: config.guidance_scale })
    }
}

/// The images of `prompts` `[N, C, h, w]`, with the steps that are trained. The seeds are those of the first
/// noise and of the noise of steps.
///
/// # Errors
/// A prompt cannot be read, or a number is not finite.
pub(super) fn sample_trajectory(
    pipeline: &DiffusionPipeline,
    plan: &StepPlan,
    prompts: &[String],
    (starts, steps): (&[u64], &[u64]),
) -> Result<(Tensor, Vec<TrainedStep>)> {
    let device = pipeline.device();
    let shape = pipeline.sample_shape();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    tch::no_grad(|| {
        let conditions = pipeline.policy_conditions(&prompts, plan.guidance_scale)?;
        let mut sample = upload(&ImageNoise::new(starts).draw(&shape)?, device);
        let step_seeds: Vec<u64> = steps.iter().map(|&seed| seed::derive(seed, "step", 0)).collect();
        let mut noise = ImageNoise::new(&step_seeds);
        let mut trained = Vec::new();
        for (index, &call) in plan.calls.iter().enumerate() {
            let prediction = predict(pipeline, &sample, call, &conditions)?;
            if !plan.has_noise[index] {
                sample = deterministic_step(pipeline.is_flow(), &sample, &prediction, call);
                continue;
            }
            let levels = Levels { now: call.now, next: call.next };
            let step = plan.transition.step(&sample, &prediction, levels);
            let next = step.sample(&upload(&noise.draw(&shape)?, device));
            if plan.is_trained[index] {
                let log_prob = plan.transition.log_prob(&next, &step);
                trained.push(TrainedStep { call, sample, next: next.shallow_clone(), log_prob });
            }
            sample = next;
        }
        if sample.isfinite().all().int64_value(&[]) == 0 {
            return Err(Error::Request("an image of the roll-out is not finite: lower train.lr".to_owned()));
        }
        Ok((sample, trained))
    })
}

/// What a loss of policy gradients is computed with.
pub(super) struct PolicyGradient<'a> {
    pub pipeline: &'a DiffusionPipeline,
    pub config: &'a RlConfig,
    /// The initial weights, where the KL term counts.
    pub reference: Option<&'a WeightCopy>,
}

impl PolicyGradient<'_> {
    /// Runs `samples` forward and backward, one trained step after the other, so that the memory is that of
    /// one: the mean of PPO's loss over samples and steps (Black et al. 2023, section 4.3), and of the KL.
    ///
    /// # Errors
    /// The policy is said to be the one that made the samples, and a ratio is not 1; or libtorch refuses an
    /// operation.
    pub fn backward(&self, samples: &Samples, is_on_policy: bool, micro_batch: &MicroBatch) -> Result<Loss> {
        let gradient = &self.config.policy_gradient;
        let transition = transition_of(gradient.noise, self.pipeline)?;
        let device = self.pipeline.device();
        let advantages: Vec<f32> = samples.weights.iter().map(|&advantage| advantage as f32).collect();
        let advantages = upload(&Tensor::from_slice(&advantages), device);
        let prompts: Vec<&str> = samples.prompts.iter().map(String::as_str).collect();
        let share = 1.0 / samples.steps.len().max(1) as f64;
        let mut sums = [0.0; 4].map(Tensor::from);
        for (index, TrainedStep { call, sample, next, log_prob }) in samples.steps.iter().enumerate() {
            let levels = Levels { now: call.now, next: call.next };
            let step_of = || -> Result<_> {
                let conditions = self.pipeline.policy_conditions(&prompts, self.config.guidance_scale)?;
                let prediction = predict(self.pipeline, sample, *call, &conditions)?;
                Ok(transition.step(sample, &prediction, levels))
            };
            let reference = self
                .reference
                .map(|reference| reference.in_place(|| tch::no_grad(|| micro_batch.forward(step_of))));
            let reference = reference.transpose()?;
            let step = micro_batch.forward(step_of)?;
            let ppo =
                clipped_policy_loss(&transition.log_prob(next, &step), log_prob, &advantages, gradient.clip);
            let deviation = (&ppo.ratio - 1.0).abs().max();
            if is_on_policy {
                check_ratio(deviation.double_value(&[]), call)?;
            }
            let policy = ppo.loss.mean(Kind::Float);
            let kl = reference.map(|reference| transition.kl(&step, &reference).mean(Kind::Float));
            let kl = kl.unwrap_or_else(|| policy.zeros_like());
            let loss = (&policy + &kl * self.config.kl_coefficient) * share;
            if index + 1 == samples.steps.len() {
                micro_batch.sync_gradients_on_next_backward();
            }
            micro_batch.backward(&(&loss * micro_batch.loss_scale))?;
            let parts = [
                loss.detach(),
                kl.detach() * share,
                deviation * share,
                ppo.is_clipped.mean(Kind::Float) * share,
            ];
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum = &*sum + part);
        }
        let [total, kl, ratio_deviation, clipped] = sums;
        let parts = vec![("kl", kl), ("ratio_deviation", ratio_deviation), ("clipped", clipped)];
        Ok(Loss { total, parts })
    }
}

/// # Errors
/// `deviation` is not 0 up to rounding: the roll-out and the training compute different probabilities.
fn check_ratio(deviation: f64, call: &SamplerCall) -> Result<()> {
    if deviation <= ROUNDING {
        return Ok(());
    }
    Err(Error::Request(format!(
        "before any update the ratio of probabilities is off by {deviation:.1e} at timestep {}: a dropout or \
         another precision makes training compute another policy than the roll-out",
        call.timestep
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::{PolicyGradientConfig, RlMethod};
    use mm_diffusion::{GenerateOptions, ImageRequest, PipelineOptions};
    use std::path::Path;

    fn pipeline(name: &str) -> DiffusionPipeline {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion").join(name);
        DiffusionPipeline::open(&folder.to_string_lossy(), &PipelineOptions::default()).unwrap()
    }

    fn config(steps: usize, gradient: PolicyGradientConfig) -> RlConfig {
        RlConfig {
            method: RlMethod::Grpo,
            prompts: 1,
            group: 2,
            steps,
            guidance_scale: 1.0,
            epochs: 1,
            kl_coefficient: 0.0,
            advantage_scale: Default::default(),
            advantage_clip: 5.0,
            policy_gradient: gradient,
            nft: Default::default(),
            rwr: Default::default(),
            reward_gradient: Default::default(),
        }
    }

    fn steps(is_it: &[bool]) -> Vec<usize> {
        is_it.iter().enumerate().filter_map(|(step, &is_it)| is_it.then_some(step)).collect()
    }

    #[test]
    fn a_window_moves_with_the_roll_outs_and_a_flow_ends_without_noise() {
        let pipeline = pipeline("sd3");
        let gradient = PolicyGradientConfig {
            window: Some(2),
            window_start: 1,
            window_shift_every: 2,
            ..Default::default()
        };
        let noisy = |gradient: &PolicyGradientConfig, number| {
            let plan = StepPlan::new(&config(8, gradient.clone()), &pipeline, 3, number).unwrap();
            assert!(plan.is_trained.iter().zip(&plan.has_noise).all(|(&trained, &noise)| noise || !trained));
            (steps(&plan.has_noise), steps(&plan.is_trained))
        };
        let windows = [0, 1, 2, 4, 6].map(|number| noisy(&gradient, number).0);
        assert_eq!(windows, [[1, 2], [1, 2], [2, 3], [3, 4], [1, 2]]);
        let (all, trained) = noisy(&PolicyGradientConfig::default(), 0);
        assert_eq!((&all, &trained), (&(0..7).collect(), &(0..7).collect()));
        let share = PolicyGradientConfig { trained_share: 0.6, ..Default::default() };
        let drawn: Vec<Vec<usize>> = (0..6).map(|number| noisy(&share, number).1).collect();
        assert!(drawn.iter().all(|drawn| drawn.len() == 5));
        assert!(drawn.iter().any(|other| *other != drawn[0]), "each roll-out draws its own steps: {drawn:?}");
    }

    #[test]
    fn steps_without_noise_are_those_of_the_pipelines_sampler() {
        let pipeline = pipeline("sd3");
        let texts = ["a star", "two red circles"];
        let seeds = [4, 5];
        let conditions = pipeline.policy_conditions(&texts, 1.0).unwrap();
        let mut sample = ImageNoise::new(&seeds).draw(&pipeline.sample_shape()).unwrap();
        for call in pipeline.sampler_calls(5).unwrap() {
            let prediction = predict(&pipeline, &sample, call, &conditions).unwrap();
            sample = deterministic_step(true, &sample, &prediction, call);
        }
        let request = |(text, &seed): (&&str, &u64)| ImageRequest {
            prompt: (*text).to_owned(),
            negative_prompt: None,
            seed,
        };
        let requests: Vec<ImageRequest> = texts.iter().zip(&seeds).map(request).collect();
        let options =
            GenerateOptions { steps: Some(5), guidance_scale: Some(1.0), ..GenerateOptions::default() };
        let expected = pipeline.sample(&requests, None, &options, &mut |_| Ok(())).unwrap();
        let largest = (sample - expected).abs().max().double_value(&[]);
        assert!(largest < 1e-4, "{largest}");
    }

    #[test]
    fn the_levels_of_ddim_end_at_the_first_timestep() {
        let calls = pipeline("sd1").sampler_calls(10).unwrap();
        assert_eq!(calls.len(), 10);
        assert!(calls.windows(2).all(|pair| pair[0].next == pair[1].now || pair[0].now < pair[0].next));
        let last = calls[9];
        assert!(last.next >= last.now && last.next < 1.0, "{last:?}");
    }

    #[test]
    fn noise_of_the_other_process_is_refused() {
        let gradient =
            PolicyGradientConfig { noise: Some(Transition::Ddim { eta: 1.0 }), ..Default::default() };
        let error = StepPlan::new(&config(4, gradient), &pipeline("sd3"), 1, 0).err().unwrap().to_string();
        assert!(error.contains("the model is a flow: use flow_sde"), "{error}");
    }
}
