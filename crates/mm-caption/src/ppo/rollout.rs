//! Roll-outs: drawn captions with their rewards, and the advantages of their tokens.

use crate::batch::CaptionBatch;
use crate::rewards::Reward;
use crate::{PpoConfig, Result};
use mm_core::loss::generalized_advantages;
use mm_core::upload;
use mm_dist::{ProcessGroup, ReduceOp};
use mm_text::decoder::NextTokens;
use std::rc::Rc;
use tch::{Device, Tensor};

/// Keeps the division by a standard deviation finite, where all advantages are equal.
const EPSILON: f64 = 1e-8;

/// The inputs of the loss of N drawn tokens beside the policy: tensors `[N]`, f32, without gradients.
#[derive(Debug)]
pub(crate) struct Experience {
    /// Log-probabilities by the policy that drew the tokens.
    pub log_probs: Tensor,
    /// Log-probabilities by the initial model.
    pub reference: Tensor,
    /// Values by the policy that drew the tokens.
    pub values: Tensor,
    /// Whitened over all tokens of the roll-out in all processes.
    pub advantages: Tensor,
    /// The sums of rewards that values are fitted to.
    pub returns: Tensor,
    /// The factor that makes a sum over the tokens the mean over those of all processes.
    pub scale: f64,
}

/// The drawn captions of a part of the images of a roll-out.
pub(super) struct Drawn {
    /// `[B, 3, S, S]`.
    pub pixel_values: Tensor,
    /// The captions, of the N tokens of all.
    pub next: NextTokens,
    /// The rewards of the captions of each image.
    pub rewards: Vec<Vec<Reward>>,
    /// The weighted sums of the rewards.
    pub totals: Vec<Vec<f64>>,
    /// As in [`Experience`], `[N]` on the device of the model.
    pub log_probs: Tensor,
    /// As in [`Experience`].
    pub reference: Tensor,
    /// As in [`Experience`].
    pub values: Tensor,
}

/// The minibatches of a roll-out, each of which is taken once in each epoch.
#[derive(Default)]
pub(super) struct Rollout {
    minibatches: Vec<CaptionBatch>,
    /// Minibatches that are taken, over all epochs, and their number.
    taken: usize,
    count: usize,
    /// Numbers of the roll-out for the log.
    pub numbers: Vec<(&'static str, f64)>,
}

impl Rollout {
    /// Computes the advantages and returns of `drawn`, one part for each minibatch. All processes take part.
    /// `means` are those of the rewards, for the log.
    ///
    /// # Errors
    /// Another process is lost.
    pub fn new(
        drawn: Vec<Drawn>,
        means: impl IntoIterator<Item = (&'static str, f64)>,
        config: &PpoConfig,
        group: &ProcessGroup,
        device: Device,
    ) -> Result<Self> {
        let captions: usize = drawn.iter().map(|drawn| drawn.next.lengths.len()).sum();
        let tokens: usize = drawn.iter().map(|drawn| drawn.next.count()).sum();
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        for drawn in &drawn {
            let (of_drawn, values) = (drawn.advantages(config)?, Vec::<f32>::try_from(&drawn.values)?);
            returns.push(of_drawn.iter().zip(&values).map(|(advantage, value)| advantage + value).collect());
            advantages.push(of_drawn);
        }
        let (mean, variance) = moments(group, &advantages)?;
        let (_, variance_of_returns) = moments(group, &returns)?;
        let whiten = |advantage: &f32| ((f64::from(*advantage) - mean) / (variance + EPSILON).sqrt()) as f32;
        let mut minibatches = Vec::with_capacity(drawn.len());
        for ((drawn, advantages), returns) in drawn.into_iter().zip(&advantages).zip(&returns) {
            let advantages: Vec<f32> = advantages.iter().map(whiten).collect();
            let experience = Experience {
                scale: group.mean_scale(drawn.next.count())?,
                advantages: upload(&Tensor::from_slice(&advantages), device),
                returns: upload(&Tensor::from_slice(returns), device),
                log_probs: drawn.log_probs,
                reference: drawn.reference,
                values: drawn.values,
            };
            minibatches.push(CaptionBatch {
                pixel_values: drawn.pixel_values,
                next: drawn.next,
                cut_captions: 0.0,
                targets: Vec::new(),
                experience: Some(Rc::new(experience)),
            });
        }
        // An advantage is the error of a value: its return less the value.
        let explained = if variance_of_returns > 0.0 { 1.0 - variance / variance_of_returns } else { 0.0 };
        let own = [("explained_variance", explained), ("length", tokens as f64 / captions.max(1) as f64)];
        let numbers = means.into_iter().chain(own).collect();
        Ok(Self { count: config.epochs * minibatches.len(), minibatches, taken: 0, numbers })
    }

    /// Whether every minibatch has been taken in every epoch.
    pub fn is_done(&self) -> bool {
        self.taken == self.count
    }

    /// Whether the last minibatch that was taken is the first of the roll-out: the policy is that of the
    /// draws.
    pub fn is_at_first(&self) -> bool {
        self.taken == 1
    }

    /// The next minibatch; none once the roll-out is done.
    pub fn take(&mut self) -> Option<CaptionBatch> {
        if self.is_done() {
            return None;
        }
        let minibatch = self.minibatches.get(self.taken % self.minibatches.len().max(1))?;
        self.taken += 1;
        Some(minibatch.shallow_clone())
    }
}

impl Drawn {
    /// The advantages of all tokens in order. The reward of a token is the penalty on its distance from the
    /// initial model, and at the last token of a caption the caption's score too (Ouyang et al. 2022,
    /// equation 2, without the term of pre-training).
    fn advantages(&self, config: &PpoConfig) -> Result<Vec<f32>> {
        let [log_probs, reference, values]: [Vec<f32>; 3] =
            [Vec::try_from(&self.log_probs)?, Vec::try_from(&self.reference)?, Vec::try_from(&self.values)?];
        let penalty = |(log_prob, reference): (&f32, &f32)| -config.kl_coef as f32 * (log_prob - reference);
        let mut rewards: Vec<f32> = log_probs.iter().zip(&reference).map(penalty).collect();
        let mut advantages = Vec::with_capacity(rewards.len());
        let mut start = 0;
        for (&length, &score) in self.next.lengths.iter().zip(self.totals.iter().flatten()) {
            let tokens = start..start + length;
            if let Some(last) = rewards[tokens.clone()].last_mut() {
                *last += score as f32;
            }
            let (rewards, values) = (&rewards[tokens.clone()], &values[tokens.clone()]);
            advantages.extend(generalized_advantages(rewards, values, config.gamma, config.lambda));
            start = tokens.end;
        }
        Ok(advantages)
    }
}

/// Mean and variance (unbiased) of the numbers of all processes.
///
/// # Errors
/// Another process is lost.
fn moments(group: &ProcessGroup, own: &[Vec<f32>]) -> Result<(f64, f64)> {
    let numbers = || own.iter().flatten().map(|&number| f64::from(number));
    let sums = group.reduce(&[numbers().count() as f64, numbers().sum()], ReduceOp::Sum)?;
    let (count, mean) = (sums[0], sums[1] / sums[0].max(1.0));
    let squares: f64 = numbers().map(|number| (number - mean).powi(2)).sum();
    let squares = group.reduce(&[squares], ReduceOp::Sum)?[0];
    Ok((mean, squares / (count - 1.0).max(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_text::decoder::CaptionTokens;
    use tch::Kind;

    fn tensor(numbers: &[f32]) -> Tensor {
        Tensor::from_slice(numbers)
    }

    /// Two captions of an image, of two tokens and one, after a begin token.
    fn drawn() -> Drawn {
        let row = |token_ids: &[u32]| CaptionTokens { token_ids: token_ids.to_vec(), prompt_length: 1 };
        Drawn {
            pixel_values: Tensor::zeros([1, 3, 2, 2], (Kind::Float, Device::Cpu)),
            next: NextTokens::new(&[row(&[1, 5, 2]), row(&[1, 2])], 0),
            rewards: Vec::new(),
            totals: vec![vec![1.0, 0.5]],
            log_probs: tensor(&[-1.0, -2.0, -3.0]),
            reference: tensor(&[-2.0, -2.0, -1.0]),
            values: tensor(&[0.5, 0.25, 0.0]),
        }
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor).unwrap()
    }

    fn assert_near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn the_score_is_at_the_last_token_and_the_penalty_at_each() {
        let config = PpoConfig { kl_coef: 0.1, lambda: 0.5, ..PpoConfig::default() };
        // Rewards are -0.1 and 1 of the first caption, 0.5 + 0.2 of the second; errors of the values are
        // -0.1 + 0.25 - 0.5, 1 - 0.25 and 0.7 - 0.
        assert_near(&drawn().advantages(&config).unwrap(), &[-0.35 + 0.5 * 0.75, 0.75, 0.7]);
    }

    #[test]
    fn advantages_are_whitened_over_all_minibatches_and_each_is_taken_once_an_epoch() {
        let config = PpoConfig { kl_coef: 0.1, lambda: 0.5, epochs: 3, ..PpoConfig::default() };
        let group = ProcessGroup::alone();
        let two = vec![drawn(), Drawn { totals: vec![vec![2.0, 0.0]], ..drawn() }];
        let mut rollout = Rollout::new(two, [("reward", 0.875)], &config, &group, Device::Cpu).unwrap();
        assert_eq!((rollout.numbers[0], rollout.numbers[2]), (("reward", 0.875), ("length", 1.5)));
        assert!(!rollout.is_done() && !rollout.is_at_first());

        let batches: Vec<CaptionBatch> = std::iter::from_fn(|| rollout.take()).collect();
        assert!(batches.len() == 6 && rollout.is_done());
        let of = |batch: &CaptionBatch| batch.experience.clone().unwrap();
        let [first, second] = [of(&batches[0]), of(&batches[1])];
        assert!(Rc::ptr_eq(&first, &of(&batches[2])) && Rc::ptr_eq(&second, &of(&batches[5])));
        assert_near(&numbers(&first.returns), &[0.525, 1.0, 0.7]);
        let whitened = [numbers(&first.advantages), numbers(&second.advantages)].concat();
        let raw = [0.025f32, 0.75, 0.7, 0.525, 1.75, 0.2];
        let mean = raw.iter().sum::<f32>() / 6.0;
        let deviation = (raw.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 5.0).sqrt();
        assert_near(&whitened, &raw.map(|x| (x - mean) / deviation));
    }
}
