//! Self-critical sequence training (Rennie et al. 2017): the gradient of the expected reward of captions that
//! the model draws itself.

use crate::rewards::{RewardTarget, Rewards, drawn_tokens, sampling};
use crate::{Baseline, CaptionPipeline, Result, ScstConfig};
use mm_dist::ProcessGroup;
use mm_text::generate::{GenerationConfig, Hypothesis, Prompt};
use mm_train::Loss;
use tch::{Kind, Tensor};

/// Self-critical training with its rewards.
pub(crate) struct Scst {
    config: ScstConfig,
    rewards: Rewards,
}

impl Scst {
    pub fn new(config: &ScstConfig, rewards: Rewards) -> Self {
        Self { config: config.clone(), rewards }
    }

    pub fn rewards(&self) -> &Rewards {
        &self.rewards
    }

    /// The loss whose gradient is that of the negative expected reward: minus the log-probability of each
    /// drawn token times its caption's advantage, averaged over the tokens of all processes. Captions begin
    /// with `prompt`; `states` and `targets` have a row for each image.
    ///
    /// # Errors
    /// The captions cannot be generated or decoded, or another process is lost.
    pub fn loss(
        &self,
        pipeline: &CaptionPipeline,
        prompt: &[u32],
        states: &Tensor,
        targets: &[RewardTarget],
        group: &ProcessGroup,
    ) -> Result<Loss> {
        let with_seed = |seed: usize| Prompt { tokens: prompt.to_vec(), seed: seed as u64 };
        let prompts: Vec<Prompt> = (0..targets.len()).map(with_seed).collect();
        let drawn = self.draw(pipeline, states, &prompts)?;
        let rewards = self.rewards.of(pipeline, &drawn, targets)?;
        let totals = self.rewards.totals(&rewards);
        let baselines = match self.config.baseline {
            Baseline::Others => totals.iter().map(|image| others(image)).collect(),
            Baseline::Greedy => self.greedy(pipeline, states, &prompts, targets)?,
        };

        let next = drawn_tokens(pipeline, &prompts, &drawn);
        let advantages = totals.iter().zip(&baselines).flat_map(|(totals, baselines)| {
            totals.iter().zip(baselines).map(|(total, baseline)| (total - baseline) as f32)
        });
        let weights: Vec<f32> = advantages
            .zip(&next.lengths)
            .flat_map(|(advantage, &length)| std::iter::repeat_n(advantage, length))
            .collect();
        let logits = pipeline.captioner.next_token_logits(states, &next).to_kind(Kind::Float);
        let log_probs = (logits / self.config.temperature).log_softmax(-1, None);
        let log_probs = log_probs.gather(1, &next.labels.unsqueeze(-1), false).squeeze_dim(-1); // [N]
        let weights = Tensor::from_slice(&weights).to_device(pipeline.device);
        let total = -(log_probs * weights).sum(Kind::Float) * group.mean_scale(next.count())?;

        let length = next.count() as f64 / next.lengths.len().max(1) as f64;
        let means = self.rewards.means(&rewards).into_iter().chain([("length", length)]);
        Ok(Loss { total, parts: means.map(|(name, mean)| (name, Tensor::from(mean))).collect() })
    }

    /// Draws the captions of each image. Their seed comes from libtorch's generator, which the trainer seeds
    /// for each step and process.
    fn draw(
        &self,
        pipeline: &CaptionPipeline,
        states: &Tensor,
        prompts: &[Prompt],
    ) -> Result<Vec<Vec<Hypothesis>>> {
        let seed = Tensor::randint(i64::MAX, [1], (Kind::Int64, tch::Device::Cpu)).int64_value(&[0]);
        let config = GenerationConfig {
            temperature: self.config.temperature,
            seed: seed as u64,
            ..sampling(self.config.samples, self.config.max_new_tokens)
        };
        pipeline.generate(&states.detach(), prompts, &config)
    }

    /// The reward of each image's greedy caption, for each of its drawn captions.
    fn greedy(
        &self,
        pipeline: &CaptionPipeline,
        states: &Tensor,
        prompts: &[Prompt],
        targets: &[RewardTarget],
    ) -> Result<Vec<Vec<f64>>> {
        let limits =
            GenerationConfig { max_new_tokens: self.config.max_new_tokens, ..GenerationConfig::default() };
        let texts = pipeline.generate(&states.detach(), prompts, &limits)?;
        let totals = self.rewards.totals(&self.rewards.of(pipeline, &texts, targets)?);
        Ok(totals.iter().map(|image| vec![image[0]; self.config.samples]).collect())
    }
}

/// For each number, the mean of the others.
fn others(rewards: &[f64]) -> Vec<f64> {
    let (sum, count) = (rewards.iter().sum::<f64>(), rewards.len().max(2) as f64);
    rewards.iter().map(|reward| (sum - reward) / (count - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::others;

    #[test]
    fn the_baseline_of_a_caption_is_the_mean_reward_of_the_others() {
        assert_eq!(others(&[1.0, 2.0, 6.0]), [4.0, 3.5, 1.5]);
    }
}
