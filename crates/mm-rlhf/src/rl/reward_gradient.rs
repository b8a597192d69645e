//! The reward's own gradient, through the last steps of the sampler.

use super::config::{RlConfig, RlMethod};
use super::item::PromptItem;
use crate::policy::{deterministic_step, per_sample, predict};
use crate::{DifferentiableReward, Result, RewardSum};
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::{seed, upload};
use mm_diffusion::{DiffusionPipeline, ImageNoise, PolicyConditions, SamplerCall};
use mm_train::{Loss, MicroBatch};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// `[rl.reward_gradient]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardGradientConfig {
    /// `draft`: the last steps that have a gradient; DRaFT-K's K. 1 learns fastest in the paper.
    pub last_steps: usize,
    /// `draft`: noise that the finished images get anew, each time for one step with a gradient (DRaFT-LV);
    /// 0: none. With `last_steps = 1`.
    pub renoisings: usize,
    /// `refl`, `alignprop`: the first and the last step from which the gradient may begin, drawn for each
    /// batch: ReFL's step that ends with its estimate of the image, 30 to 39 of 40, and the step whose
    /// predictions before it have no gradient, about 42 of 50, of AlignProp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin: Option<[usize; 2]>,
    /// The factor of the loss: 1e-3 in ReFL, 0.01 in AlignProp.
    pub scale: f64,
    /// The reward from which there is no loss, as in ReFL (2); none: the loss is minus the reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enough: Option<f64>,
}

impl Default for RewardGradientConfig {
    fn default() -> Self {
        Self { last_steps: 1, renoisings: 0, begin: None, scale: 1.0, enough: None }
    }
}

impl RewardGradientConfig {
    pub(super) fn validate(
        &self,
        file: &ConfigFile,
        method: RlMethod,
        steps: usize,
    ) -> std::result::Result<(), ConfigError> {
        let last = self.last_steps;
        let within = format!("must be from 1 to `rl.steps` {steps}, is {last}");
        file.check((1..=steps).contains(&last), "rl.reward_gradient.last_steps", within)?;
        let one = "starts from images of one step: set `last_steps = 1`";
        file.check(self.renoisings == 0 || last == 1, "rl.reward_gradient.renoisings", one)?;
        let is_draft = method == RlMethod::Draft;
        let drawn = "is of `refl` and `alignprop`: `draft` has `last_steps`";
        file.check(!is_draft || self.begin.is_none(), "rl.reward_gradient.begin", drawn)?;
        let fixed = "is of `draft`: set `begin`";
        file.check(is_draft || (last == 1 && self.renoisings == 0), "rl.reward_gradient.last_steps", fixed)?;
        if let Some([first, last]) = self.begin {
            let order = format!("must be [first, last] below `rl.steps` {steps}, is [{first}, {last}]");
            file.check(first <= last && last < steps, "rl.reward_gradient.begin", order)?;
        }
        file.check(self.scale > 0.0, "rl.reward_gradient.scale", "must be above 0")
    }

    /// The first and the last step that the gradient may begin from: the papers' shares of the steps.
    fn begin(&self, method: RlMethod, steps: usize) -> [usize; 2] {
        let at = |share: f64| ((steps as f64 * share) as usize).min(steps - 1);
        self.begin.unwrap_or(match method {
            RlMethod::Refl => [at(0.75), steps - 1],
            _ => [at(0.74), at(0.94)],
        })
    }
}

/// What a loss by the reward's gradient is computed with.
pub(super) struct RewardGradient<'a> {
    pub pipeline: &'a DiffusionPipeline,
    pub config: &'a RlConfig,
    pub rewards: &'a RewardSum,
}

/// The steps of a batch.
struct Span {
    /// The first that has a gradient.
    first: usize,
    /// Whether the image is the estimate of the noise-free sample at step `first`, without the steps after
    /// it.
    is_estimate: bool,
}

impl RewardGradient<'_> {
    /// Samples the images of `prompts` and back-propagates minus their reward.
    ///
    /// # Errors
    /// A prompt cannot be read or rated, or a score is not finite.
    pub fn backward(&self, prompts: &[PromptItem], micro_batch: &MicroBatch) -> Result<Loss> {
        let (total, reward) = micro_batch.forward(|| self.loss(prompts, &self.config.reward_gradient))?;
        micro_batch.sync_gradients_on_next_backward();
        micro_batch.backward(&(&total * micro_batch.loss_scale))?;
        Ok(Loss { total: total.detach(), parts: vec![("reward", reward)] })
    }

    /// The loss, and the mean reward without gradients.
    fn loss(&self, prompts: &[PromptItem], gradient: &RewardGradientConfig) -> Result<(Tensor, Tensor)> {
        let device = self.pipeline.device();
        let texts: Vec<&str> = prompts.iter().map(|item| item.prompt.as_str()).collect();
        let seeds: Vec<u64> = prompts.iter().map(|item| item.seed).collect();
        let calls = self.pipeline.sampler_calls(self.config.steps)?;
        let span = self.span(gradient, prompts);
        let mut noise = ImageNoise::new(&seeds);
        let shape = self.pipeline.sample_shape();
        let mut sample = upload(&noise.draw(&shape)?, device);
        let guidance = self.config.guidance_scale;
        let without = tch::no_grad(|| self.pipeline.policy_conditions(&texts, guidance))?;
        let is_flow = self.pipeline.is_flow();
        // AlignProp's gradient goes through the samples of all steps, but not through early predictions:
        // those of samples without a gradient have none either.
        for &call in &calls[..span.first] {
            let prediction = tch::no_grad(|| predict(self.pipeline, &sample, call, &without))?;
            sample = deterministic_step(is_flow, &sample, &prediction, call);
        }
        let with = self.pipeline.policy_conditions(&texts, guidance)?;
        if span.is_estimate {
            sample = self.estimate(&sample, calls[span.first], &with)?;
        } else {
            for &call in &calls[span.first..] {
                let prediction = predict(self.pipeline, &sample, call, &with)?;
                sample = deterministic_step(is_flow, &sample, &prediction, call);
            }
        }
        let mut samples = vec![sample];
        let last = calls[calls.len() - 1];
        for _ in 0..gradient.renoisings {
            let clean = samples[0].detach();
            let drawn = upload(&noise.draw(&shape)?, device);
            let noised = self.pipeline.policy_noised(&clean, &drawn, &per_sample(&clean, last.now));
            samples.push(self.estimate(&noised, last, &with)?);
        }
        let mut scores = Vec::with_capacity(samples.len());
        for sample in &samples {
            let pixels = (self.pipeline.decode_with_gradient(sample) / 2.0 + 0.5).clamp(0.0, 1.0);
            scores.push(self.rewards.score_pixels(&pixels.to_kind(Kind::Float), &texts)?);
        }
        let reward = scores[0].detach().mean(Kind::Float);
        let scores = Tensor::cat(&scores, 0);
        let losses = match gradient.enough {
            Some(enough) => (-scores + enough).relu(),
            None => -scores,
        };
        Ok((losses.mean(Kind::Float) * gradient.scale, reward))
    }

    /// The noise-free sample that the prediction at `call` means.
    fn estimate(&self, sample: &Tensor, call: SamplerCall, conditions: &PolicyConditions) -> Result<Tensor> {
        let prediction = predict(self.pipeline, sample, call, conditions)?;
        Ok(self.pipeline.policy_estimate(sample, &prediction, &per_sample(sample, call.now)))
    }

    /// The steps of a batch of `prompts`, whose first seed decides what is drawn.
    fn span(&self, gradient: &RewardGradientConfig, prompts: &[PromptItem]) -> Span {
        let steps = self.config.steps;
        let method = self.config.method;
        if method == RlMethod::Draft {
            return Span { first: steps - gradient.last_steps, is_estimate: false };
        }
        let [least, most] = gradient.begin(method, steps);
        let drawn = prompts.first().map_or(0, |item| seed::derive(item.seed, "begin", 0));
        let first = least + (drawn % (most - least + 1) as u64) as usize;
        Span { first, is_estimate: method == RlMethod::Refl }
    }
}
