//! Roll-outs: images of the policy, with their rewards and advantages.

use super::config::{RlConfig, RlMethod};
use super::item::{PromptItem, RlBatch};
use super::policy_gradient::{StepPlan, TrainedStep, sample_trajectory};
use crate::moments::Moments;
use crate::policy::{Advantages, PromptStatistics, group_advantages, optimality, pictures, rwr_weights};
use crate::{Result, RewardSum};
use mm_core::seed;
use mm_diffusion::{DiffusionPipeline, GenerateOptions, ImageRequest};
use mm_dist::ProcessGroup;
use mm_train::{agree, gather};
use std::rc::Rc;
use tch::Tensor;

/// Added to the deviation that advantages are divided by (Flow-GRPO).
const EPSILON: f64 = 1e-4;

/// Images that are made together, and trained on together.
pub struct Samples {
    /// Their numbers in the roll-out.
    pub(super) indices: Vec<usize>,
    pub(super) prompts: Vec<String>,
    /// The seed of each, from which the noise of forward processes derives.
    pub(super) seeds: Vec<u64>,
    /// `[N, C, h, w]`: latents, or pixels of a model without an autoencoder.
    pub(super) clean: Tensor,
    /// The steps that are trained, of policy gradients.
    pub(super) steps: Vec<TrainedStep>,
    /// What the images weigh: advantages with policy gradients, the optimality of NFT, the weights of RWR.
    pub(super) weights: Vec<f64>,
    /// Whether the images of the same prompt differ in reward: those of other groups teach nothing.
    pub(super) is_kept: Vec<bool>,
}

/// A roll-out in numbers, of all processes.
#[derive(Clone, Copy, Debug)]
pub struct RolloutSummary {
    pub(super) reward: f64,
    pub(super) reward_std: f64,
    /// The share of groups whose rewards are all equal.
    pub(super) groups_without_variance: f64,
}

/// The micro-batches of a roll-out, in the order in which they are trained on.
pub(super) struct Rollout {
    batches: Vec<Rc<Samples>>,
    /// The batch and the pass of each micro-batch.
    order: Vec<(usize, u64)>,
    next: usize,
    pub summary: RolloutSummary,
}

/// What a roll-out is made with.
pub(super) struct RolloutMaker<'a> {
    pub pipeline: &'a DiffusionPipeline,
    pub rewards: &'a RewardSum,
    pub config: &'a RlConfig,
    pub group: &'a ProcessGroup,
    /// Of the run.
    pub seed: u64,
    /// The number of the roll-out, from 0.
    pub number: u64,
    /// Images of a micro-batch, of all processes together.
    pub micro_batch: usize,
}

impl RolloutMaker<'_> {
    /// Makes the images of `prompts`, which are those of all processes, and rates them. Each process makes
    /// those that it trains on: the same micro-batches at the same sizes, so that the probabilities of the
    /// same policy are equal to the last bit.
    pub fn make(&self, prompts: &[PromptItem], statistics: Option<&mut PromptStatistics>) -> Result<Rollout> {
        let total = self.config.samples();
        let shuffled = shuffle(total, seed::derive(self.seed, "rollout", self.number));
        let own = self.micro_batch / self.group.world();
        let first = self.group.rank() * own;
        let plan = StepPlan::new(self.config, self.pipeline, self.seed, self.number)?;
        let mut made = Vec::new();
        let mut rated: Vec<(usize, f32)> = Vec::new();
        let result: Result<()> = shuffled.chunks(self.micro_batch).try_for_each(|batch| {
            let samples = self.samples(prompts, &batch[first..first + own], &plan)?;
            let pictures = pictures(self.pipeline, &samples.clean)?;
            let texts: Vec<&str> = samples.prompts.iter().map(String::as_str).collect();
            let scores = self.rewards.score_parts(&pictures, &texts)?.total;
            rated.extend(samples.indices.iter().copied().zip(scores));
            made.push(samples);
            Ok(())
        });
        agree(self.group, result.map_err(mm_train::Error::from))?;
        let mut rated = gather(self.group, &rated)?;
        rated.sort_unstable_by_key(|(index, _)| *index);
        let rewards: Vec<f64> = rated.into_iter().map(|(_, reward)| f64::from(reward)).collect();
        let advantages = self.advantages(prompts, &rewards, statistics);
        let summary = RolloutSummary::of(&rewards, &advantages);
        let weights = match self.config.method {
            RlMethod::Nft => optimality(&advantages.values, self.config.advantage_clip),
            RlMethod::Rwr => rwr_weights(&rewards, self.config.rwr.temperature),
            _ => advantages.values.clone(),
        };
        for samples in &mut made {
            samples.weights = samples.indices.iter().map(|&index| weights[index]).collect();
            let has_advantage = |&index: &usize| advantages.values[index] != 0.0;
            samples.is_kept = samples.indices.iter().map(has_advantage).collect();
        }
        let batches: Vec<Rc<Samples>> = made.into_iter().map(Rc::new).collect();
        let mut order = Vec::new();
        for epoch in 0..self.config.epochs as u64 {
            let pass = self.number * self.config.epochs as u64 + epoch;
            // The first pass keeps the order: its first step is by the policy that made the images.
            let places = match epoch {
                0 => (0..batches.len()).collect(),
                _ => shuffle(batches.len(), seed::derive(self.seed, "pass", pass)),
            };
            order.extend(places.into_iter().map(|place| (place, pass)));
        }
        Ok(Rollout { batches, order, next: 0, summary })
    }

    /// The images of the numbers `indices` of the roll-out, not rated yet.
    fn samples(&self, prompts: &[PromptItem], indices: &[usize], plan: &StepPlan) -> Result<Samples> {
        let of = |&index: &usize| &prompts[index / self.config.group];
        let texts: Vec<String> = indices.iter().map(|index| of(index).prompt.clone()).collect();
        let image_seed =
            |index: &usize| seed::derive(of(index).seed, "image", (index % self.config.group) as u64);
        let seeds: Vec<u64> = indices.iter().map(image_seed).collect();
        let (clean, steps) = if self.config.method.is_policy_gradient() {
            let has_same = self.config.policy_gradient.same_noise;
            let start_seed = |(index, &seed): (&usize, &u64)| if has_same { of(index).seed } else { seed };
            let starts: Vec<u64> = indices.iter().zip(&seeds).map(start_seed).collect();
            sample_trajectory(self.pipeline, plan, &texts, (&starts, &seeds))?
        } else {
            let request = |(prompt, &seed): (&String, &u64)| ImageRequest {
                prompt: prompt.clone(),
                negative_prompt: None,
                seed,
            };
            let requests: Vec<ImageRequest> = texts.iter().zip(&seeds).map(request).collect();
            let options = GenerateOptions {
                steps: Some(self.config.steps),
                guidance_scale: Some(self.config.guidance_scale),
                ..GenerateOptions::default()
            };
            // A copy, which a backward pass may keep: inference tensors it may not.
            (self.pipeline.sample(&requests, None, &options, &mut |_| Ok(()))?.copy(), Vec::new())
        };
        let (weights, is_kept) = (Vec::new(), Vec::new());
        Ok(Samples { indices: indices.to_vec(), prompts: texts, seeds, clean, steps, weights, is_kept })
    }

    fn advantages(
        &self,
        prompts: &[PromptItem],
        rewards: &[f64],
        statistics: Option<&mut PromptStatistics>,
    ) -> Advantages {
        let RlConfig { group, advantage_scale, advantage_clip, .. } = *self.config;
        match statistics {
            Some(statistics) => {
                let text = |index: usize| prompts[index / group].prompt.as_str();
                let texts: Vec<&str> = (0..rewards.len()).map(text).collect();
                statistics.advantages(&texts, rewards, advantage_clip)
            }
            None => {
                let groups: Vec<usize> = (0..rewards.len()).map(|index| index / group).collect();
                group_advantages(rewards, &groups, advantage_scale, EPSILON, advantage_clip)
            }
        }
    }
}

impl Rollout {
    /// The next micro-batch; none when all are used.
    pub fn next_batch(&mut self, accumulate: usize) -> Option<RlBatch> {
        let &(place, pass) = self.order.get(self.next)?;
        let is_on_policy = self.next < accumulate;
        self.next += 1;
        let samples = Rc::clone(&self.batches[place]);
        Some(RlBatch::Rollout { samples, pass, is_on_policy, summary: self.summary })
    }

    pub fn is_used_up(&self) -> bool {
        self.next == self.order.len()
    }
}

impl RolloutSummary {
    fn of(rewards: &[f64], advantages: &Advantages) -> Self {
        let Moments { mean, std } = Moments::of(rewards.iter().copied());
        Self {
            reward: mean,
            reward_std: std,
            groups_without_variance: advantages.groups_without_variance as f64
                / advantages.groups.max(1) as f64,
        }
    }
}

/// The numbers from 0 to `count` in an order that `seed` decides (Fisher & Yates).
fn shuffle(count: usize, seed: u64) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = seed::derive(seed, "shuffle", last as u64) % (last as u64 + 1);
        numbers.swap(last, other as usize);
    }
    numbers
}
