//! Policy gradients: the clipped loss of actions, the estimate of a KL divergence, and advantages.

use tch::{Kind, Tensor};

/// The loss of actions that a policy drew before it was last updated.
#[derive(Debug)]
pub struct ClippedPolicyLoss {
    /// The loss of each action, with a gradient.
    pub loss: Tensor,
    /// The probability of each action now over that when it was drawn, f32, without a gradient.
    pub ratio: Tensor,
    /// 1 for each action whose loss is the clipped one, which has no gradient; 0 for the others. f32.
    pub is_clipped: Tensor,
}

/// The clipped surrogate objective (Schulman et al. 2017, "Proximal policy optimization algorithms", equation
/// 7), negated to be minimized: `max(-A r, -A clip(r, 1 - clip, 1 + clip))` for each action, with
/// `r = exp(log_probs - old_log_probs)` and the advantage A.
///
/// All tensors have one shape, such as `[N]`; they are taken to f32, also under autocast. Gradients reach
/// `log_probs` alone.
pub fn clipped_policy_loss(
    log_probs: &Tensor,
    old_log_probs: &Tensor,
    advantages: &Tensor,
    clip: f64,
) -> ClippedPolicyLoss {
    let [log_probs, old, advantages] =
        [log_probs, &old_log_probs.detach(), &advantages.detach()].map(|x| x.to_kind(Kind::Float));
    let ratio = (log_probs - old).exp();
    let unclipped = -&ratio * &advantages;
    let clipped = -ratio.clamp(1.0 - clip, 1.0 + clip) * &advantages;
    ClippedPolicyLoss {
        is_clipped: clipped.detach().gt_tensor(&unclipped.detach()).to_kind(Kind::Float),
        loss: unclipped.maximum(&clipped),
        ratio: ratio.detach(),
    }
}

/// An estimate of the KL divergence of the policy from a reference for each of its actions: `exp(d) - d - 1`
/// with `d = reference - log_probs`, which is 0 or more for each action and, over draws of the policy, has
/// the divergence as its mean (Schulman 2020, "Approximating KL divergence", k3).
///
/// Both are log-probabilities of the same actions, of one shape; the estimate has it too, in f32, and a
/// gradient for `log_probs`.
pub fn kl_estimate(log_probs: &Tensor, reference: &Tensor) -> Tensor {
    let difference = reference.detach().to_kind(Kind::Float) - log_probs.to_kind(Kind::Float);
    // `expm1` of a small number may round below it.
    (difference.expm1() - &difference).clamp_min(0.0)
}

/// The generalized advantages of the steps of one sequence (Schulman et al. 2016, "High-dimensional
/// continuous control using generalized advantage estimation", equation 16):
/// `A_t = delta_t + gamma lambda A_(t+1)` with `delta_t = rewards_t + gamma values_(t+1) - values_t`. The
/// sequence ends after its last step: values and advantages beyond it are 0.
///
/// `rewards` and `values` are of equal length, as is the result. `advantages + values` are the returns that
/// values are fitted to.
pub fn generalized_advantages(rewards: &[f32], values: &[f32], gamma: f64, lambda: f64) -> Vec<f32> {
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    let backwards = rewards.iter().zip(values).rev().map(|(&reward, &value)| {
        let delta = f64::from(reward) + gamma * next_value - f64::from(value);
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = f64::from(value);
        next_advantage as f32
    });
    let mut advantages: Vec<f32> = backwards.collect();
    advantages.reverse();
    advantages
}

#[cfg(test)]
mod tests {
    use super::super::contrastive::tests::check_gradient;
    use super::*;
    use mm_testing::normal;

    const CLIP: f64 = 0.2;

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor).unwrap()
    }

    fn assert_near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{found:?} is not {expected:?}");
        }
    }

    /// Log-probabilities before and after an update, and advantages.
    fn actions() -> [Tensor; 3] {
        let ratios = Tensor::from_slice(&[1.5f32, 1.5, 0.5, 0.5, 1.1, 1.0]);
        let old = Tensor::from_slice(&[-1.0f32, -2.0, -0.5, -3.0, -1.0, -0.1]);
        [&old + ratios.log(), old, Tensor::from_slice(&[1.0f32, -1.0, 1.0, -1.0, 2.0, -3.0])]
    }

    #[test]
    fn the_loss_is_clipped_only_where_it_would_reward_a_step_that_is_too_long() {
        let [log_probs, old, advantages] = actions();
        let found = clipped_policy_loss(&log_probs, &old, &advantages, CLIP);
        assert_near(&numbers(&found.loss), &[-1.2, 1.5, -0.5, 0.8, -2.2, 3.0]);
        assert_near(&numbers(&found.ratio), &[1.5, 1.5, 0.5, 0.5, 1.1, 1.0]);
        assert_near(&numbers(&found.is_clipped), &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_clipped_action_has_no_gradient_and_the_others_that_of_differences() {
        let [log_probs, old, advantages] = actions();
        let loss = |log_probs: &Tensor| {
            clipped_policy_loss(log_probs, &old, &advantages, CLIP).loss.sum(Kind::Float)
        };
        check_gradient(|x| loss(&x[0]), &[log_probs.copy()]);
        let leaf = log_probs.copy().set_requires_grad(true);
        loss(&leaf).backward();
        assert_near(&numbers(&leaf.grad()), &[0.0, 1.5, -0.5, 0.0, -2.2, 3.0]);
    }

    #[test]
    fn the_kl_estimate_is_never_negative_and_has_the_gradient_of_its_value() {
        let log_probs = Tensor::from_slice(&[-1.0f32, -2.0, -0.5]);
        let reference = Tensor::from_slice(&[-1.0f32, -1.0, -1.5]);
        let expected = [0.0, 1f32.exp() - 2.0, (-1f32).exp()];
        assert_near(&numbers(&kl_estimate(&log_probs, &reference)), &expected);
        let close = normal(1, &[1000]) * 1e-4;
        assert!(kl_estimate(&close, &close.zeros_like()).min().double_value(&[]) >= 0.0);
        check_gradient(|x| kl_estimate(&x[0], &reference).sum(Kind::Float), &[log_probs]);
    }

    #[test]
    fn the_kl_estimate_has_the_divergence_as_its_mean() {
        let log_p = normal(2, &[7]).log_softmax(-1, Kind::Double);
        let log_q = normal(3, &[7]).log_softmax(-1, Kind::Double);
        let divergence = (log_p.exp() * (&log_p - &log_q)).sum(Kind::Double).double_value(&[]);
        let mean = (log_p.exp() * kl_estimate(&log_p, &log_q)).sum(Kind::Double).double_value(&[]);
        assert!((mean - divergence).abs() < 1e-6, "{mean} is not {divergence}");
    }

    #[test]
    fn advantages_are_discounted_sums_of_the_errors_of_values() {
        let (rewards, values) = ([0.0, 0.0, 1.0], [0.5, 0.4, 0.2]);
        assert_near(&generalized_advantages(&rewards, &values, 1.0, 0.95), &[0.432, 0.56, 0.8]);
        assert_near(&generalized_advantages(&rewards, &values, 0.9, 0.5), &[-0.077, 0.14, 0.8]);
        // At lambda 1 they are returns less values, at lambda 0 the errors of one step.
        assert_near(&generalized_advantages(&rewards, &values, 1.0, 1.0), &[0.5, 0.6, 0.8]);
        assert_near(&generalized_advantages(&rewards, &values, 1.0, 0.0), &[-0.1, -0.2, 0.8]);
        assert!(generalized_advantages(&[], &[], 1.0, 0.95).is_empty());
    }
}
