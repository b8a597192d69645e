//! Losses of methods that need no probabilities of steps, and their weights.

use super::mean_per_image;
use tch::{Kind, Tensor};

/// The least mean absolute error that a loss of DiffusionNFT is divided by.
const LEAST_ERROR: f64 = 1e-5;

/// The loss of DiffusionNFT (Zheng et al. 2025, section 3) of each image, `[N]` in f32.
///
/// `noisy` `[N, C, h, w]` is the image `clean` of the old policy, noised to the share `sigma` `[N]`;
/// `velocity` and `old_velocity` are the predictions of the trained and the old policy for it. `optimality`
/// `[N]`, from 0 to 1, is the probability that the image is a good one ([`optimality`]). An implicit positive
/// policy moves from the old one toward the trained by `beta`, an implicit negative one away from it:
///
/// v+ = beta v + (1 - beta) v_old, v- = (1 + beta) v_old - beta v, and the loss is (r L+ + (1 - r) L-) / beta
///
/// L of a policy is the squared error of its x0 = z - s v, divided by its mean absolute error without
/// gradient (at least 1e-5), so that all levels of noise count alike. There are gradients to `velocity` only.
pub fn nft_loss(
    noisy: &Tensor,
    sigma: &Tensor,
    clean: &Tensor,
    velocity: &Tensor,
    old_velocity: &Tensor,
    optimality: &Tensor,
    beta: f64,
) -> Tensor {
    let [noisy, sigma, clean, old_velocity, optimality] =
        [noisy, sigma, clean, old_velocity, optimality].map(|x| x.to_kind(Kind::Float).detach());
    let velocity = velocity.to_kind(Kind::Float);
    let sigma = sigma.view([-1, 1, 1, 1]);
    let loss = |velocity: Tensor| {
        let error = &noisy - &sigma * velocity - &clean;
        let scale = mean_per_image(&error.detach().abs()).clamp_min(LEAST_ERROR);
        mean_per_image(&error.square()) / scale
    };
    let positive = loss(&velocity * beta + &old_velocity * (1.0 - beta));
    let negative = loss(&old_velocity * (1.0 + beta) - &velocity * beta);
    (&optimality * positive + (1.0 - &optimality) * negative) / beta
}

/// The probabilities that images of these advantages are good ones: A / `clip` / 2 + 1/2, from 0 to 1
/// (DiffusionNFT; its `clip` is 5).
pub fn optimality(advantages: &[f64], clip: f64) -> Vec<f64> {
    advantages.iter().map(|advantage| (advantage / clip / 2.0 + 0.5).clamp(0.0, 1.0)).collect()
}

/// The decay of DiffusionNFT's old policy after update number `update`, from 0: old = decay * old + (1 -
/// decay) * trained. So the old policy is replaced at first, and averaged later. DiffusionNFT's `rate` is
/// 0.001, and its `most` 0.5.
pub fn nft_decay(update: u64, rate: f64, most: f64) -> f64 {
    (rate * update as f64).min(most)
}

/// The loss of Diffusion-DPO (Wallace et al. 2023, equation 14) and the implicit accuracy of each pair, both
/// `[N]` in f32: the accuracy is 1 where the trained model prefers the winner more than the reference does,
/// otherwise 0.
///
/// All inputs are mean squared errors `[N]` of predictions, at the same level of noise and with the same
/// noise for both images of a pair: of the trained model for `winner` and `loser`, and of the reference,
/// without gradients. The loss is -log sigmoid(-beta / 2 ((winner - loser) - (reference_winner -
/// reference_loser))). `beta` is that of the authors, 5000 for Stable Diffusion 1.5 and XL; diffusers' script
/// leaves out the 1/2, so that its 2500 is the same.
pub fn diffusion_dpo_loss(
    winner: &Tensor,
    loser: &Tensor,
    reference_winner: &Tensor,
    reference_loser: &Tensor,
    beta: f64,
) -> (Tensor, Tensor) {
    let difference =
        |winner: &Tensor, loser: &Tensor| winner.to_kind(Kind::Float) - loser.to_kind(Kind::Float);
    let trained = difference(winner, loser);
    let reference = difference(reference_winner, reference_loser).detach();
    let margin = (trained - reference) * (-beta / 2.0);
    (-margin.log_sigmoid(), margin.gt(0.0).to_kind(Kind::Float))
}

/// The weights of a batch's images in reward-weighted regression: softmax(r / `temperature`) times their
/// number, so that the mean is 1 (Peters & Schaal 2007; Black et al. 2023, section 4.2). They multiply the
/// loss of pretraining.
pub fn rwr_weights(rewards: &[f64], temperature: f64) -> Vec<f64> {
    // The largest exponent is 0, so that none overflows.
    let most = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = rewards.iter().map(|reward| ((reward - most) / temperature).exp()).collect();
    let mean = exponentials.iter().sum::<f64>() / rewards.len() as f64;
    exponentials.into_iter().map(|exponential| exponential / mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optimality_is_a_half_at_the_mean_and_ends_at_the_clip() {
        assert_eq!(optimality(&[0.0, 2.5, -5.0, 9.0], 5.0), [0.5, 0.75, 0.0, 1.0]);
    }

    #[test]
    fn the_old_policy_is_replaced_at_first_and_averaged_later() {
        assert_eq!([0, 100, 500, 10_000].map(|update| nft_decay(update, 0.001, 0.5)), [0.0, 0.1, 0.5, 0.5]);
    }

    #[test]
    fn weights_have_the_mean_one_and_survive_large_rewards() {
        let weights = rwr_weights(&[1000.0, 1000.0 + 0.2 * 3f64.ln()], 0.2);
        assert!((weights[0] - 0.5).abs() < 1e-9 && (weights[1] - 1.5).abs() < 1e-9, "{weights:?}");
        assert_eq!(rwr_weights(&[-7.0; 3], 0.1), [1.0; 3]);
        assert!(rwr_weights(&[], 0.1).is_empty());
    }
}
