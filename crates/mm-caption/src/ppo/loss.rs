//! The loss of the tokens of drawn captions: the clipped loss of the policy, and that of the values.

use super::rollout::Experience;
use crate::PpoConfig;
use mm_core::loss::{ClippedPolicyLoss, clipped_policy_loss};
use tch::Tensor;

/// The losses of N tokens.
pub(super) struct TokenLosses {
    /// Of their probabilities.
    pub policy: ClippedPolicyLoss,
    /// Of their values, with a gradient: `[N]`.
    pub value: Tensor,
}

impl TokenLosses {
    /// The losses of tokens with these log-probabilities and values, both `[N]`, against those of the
    /// roll-out.
    ///
    /// That of a value v is half the larger of `(v - R)^2` and `(clip(v, old - value_clip, old +
    /// value_clip) - R)^2`, with the return R: as the policy, it moves only so far in one roll-out.
    pub fn new(log_probs: &Tensor, values: &Tensor, experience: &Experience, config: &PpoConfig) -> Self {
        let Experience { log_probs: old_log_probs, values: old_values, advantages, returns, .. } = experience;
        let clipped = old_values + (values - old_values).clamp(-config.value_clip, config.value_clip);
        let error = |values: &Tensor| (values - returns).square();
        Self {
            policy: clipped_policy_loss(log_probs, old_log_probs, advantages, config.clip),
            value: error(values).maximum(&error(&clipped)) * 0.5,
        }
    }

    /// The loss of each token, `[N]`.
    pub fn total(&self, config: &PpoConfig) -> Tensor {
        &self.policy.loss + &self.value * config.vf_coef
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;
    use tch::Kind;

    const TOKENS: i64 = 200;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
    }

    /// The formulas, one token at a time: the loss and its derivatives by log-probability and value.
    fn of_token(new: [f64; 2], old: [f64; 2], [advantage, ret]: [f64; 2], config: &PpoConfig) -> [f64; 3] {
        let ratio = (new[0] - old[0]).exp();
        let bounded = ratio.clamp(1.0 - config.clip, 1.0 + config.clip);
        let (policy, slope) = if -advantage * bounded > -advantage * ratio {
            (-advantage * bounded, 0.0)
        } else {
            (-advantage * ratio, -advantage * ratio)
        };
        let bounded = old[1] + (new[1] - old[1]).clamp(-config.value_clip, config.value_clip);
        let (value, value_slope) = if (bounded - ret).powi(2) > (new[1] - ret).powi(2) {
            (0.5 * (bounded - ret).powi(2), 0.0)
        } else {
            (0.5 * (new[1] - ret).powi(2), new[1] - ret)
        };
        [policy + config.vf_coef * value, slope, config.vf_coef * value_slope]
    }

    #[test]
    fn loss_and_gradients_equal_the_formulas_token_by_token() {
        let config = PpoConfig { vf_coef: 0.3, ..PpoConfig::default() };
        let random = |seed: u64| normal(seed, &[TOKENS]);
        let old_log_probs = -random(1).abs();
        let log_probs = (&old_log_probs + random(2) * 0.3).set_requires_grad(true);
        let values = random(3).set_requires_grad(true);
        let experience = Experience {
            values: values.detach() + random(4) * 0.3,
            advantages: random(5),
            returns: random(6),
            reference: old_log_probs.shallow_clone(),
            log_probs: old_log_probs,
            scale: 1.0,
        };
        let losses = TokenLosses::new(&log_probs, &values, &experience, &config);
        let found = losses.total(&config);
        found.sum(Kind::Float).backward();

        let [loss, by_log_prob, by_value, new, new_values, old, old_values, advantages, returns] = [
            &found,
            &log_probs.grad(),
            &values.grad(),
            &log_probs,
            &values,
            &experience.log_probs,
            &experience.values,
            &experience.advantages,
            &experience.returns,
        ]
        .map(numbers);
        let mut clipped = [0, 0];
        for token in 0..TOKENS as usize {
            let expected = of_token(
                [new[token], new_values[token]],
                [old[token], old_values[token]],
                [advantages[token], returns[token]],
                &config,
            );
            for (found, expected) in [loss[token], by_log_prob[token], by_value[token]].iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "token {token}: {found} is not {expected}");
            }
            clipped[0] += usize::from(expected[1] == 0.0);
            clipped[1] += usize::from(expected[2] == 0.0);
        }
        assert!(clipped.iter().all(|&count| count > 20), "{clipped:?} tokens are clipped");
        assert_eq!(losses.policy.is_clipped.sum(Kind::Float).double_value(&[]), clipped[0] as f64);
    }
}
