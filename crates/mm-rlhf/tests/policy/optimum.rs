//! A policy of one step with a known optimum: its only parameter is the prediction or the image, and the
//! reward of an image is minus its squared distance from a target.

use mm_core::loss::clipped_policy_loss;
use mm_rlhf::policy::{
    AdvantageScale, Levels, PromptStatistics, Transition, diffusion_dpo_loss, group_advantages, nft_decay,
    nft_loss, optimality, rwr_weights,
};
use mm_testing::{normal, uniform};
use tch::nn::{Adam, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

const IMAGES: i64 = 64;
const ONE: [i64; 4] = [1, 1, 2, 2];
const ALL: [i64; 4] = [IMAGES, 1, 2, 2];
const UPDATES: u64 = 300;
/// The deviation of the images of policies that no transition gives one.
const SPREAD: f64 = 0.3;
/// The share of the initial distance from the target that may be left.
const NEAR: f64 = 0.1;

/// Trains a parameter from 0 with the `loss` of an update, and gives what is left of its distance from
/// `target` as a share of the initial distance.
fn distance_left(target: &Tensor, mut loss: impl FnMut(u64, &Tensor) -> Tensor) -> f64 {
    let vs = VarStore::new(Device::Cpu);
    let parameter = vs.root().zeros("parameter", &ONE);
    let mut optimizer = Adam::default().build(&vs, 0.1).unwrap();
    for update in 0..UPDATES {
        optimizer.set_lr(0.1 * (1.0 - update as f64 / UPDATES as f64));
        optimizer.backward_step(&loss(update, &parameter));
    }
    ((&parameter - target).norm() / target.norm()).double_value(&[])
}

/// The reward of each of `images` `[N, 1, 2, 2]`.
fn rewards(images: &Tensor, target: &Tensor) -> Vec<f64> {
    let distances = (images - target).square().sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Double);
    Vec::try_from(-distances).unwrap()
}

fn images_around(mean: &Tensor, seed: u64) -> Tensor {
    mean.detach() + normal(seed, &ALL) * SPREAD
}

fn floats(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float)
}

/// Two updates of PPO for each batch of one step's images, as DDPO and GRPO do them, with advantages times
/// `sign`. The optimum is the prediction of which the step's mean is the target.
fn policy_gradient(
    transition: Transition,
    levels: Levels,
    sign: f64,
    mut advantages: impl FnMut(&[f64]) -> Vec<f64>,
) -> f64 {
    let sample = normal(1, &ONE);
    let best = normal(2, &ONE) * 2.0;
    let target = transition.step(&sample, &best, levels).mean;
    let mut batch = None;
    distance_left(&best, |update, prediction| {
        let step = transition.step(&sample.expand(ALL, false), &prediction.expand(ALL, false), levels);
        if update % 2 == 0 {
            let next = step.sample(&normal(100 + update, &ALL)).detach();
            let log_prob = transition.log_prob(&next, &step).detach();
            let advantages = floats(&advantages(&rewards(&next, &target))) * sign;
            batch = Some((next, log_prob, advantages));
        }
        let (next, old_log_prob, advantages) = batch.as_ref().unwrap();
        let log_prob = transition.log_prob(next, &step);
        clipped_policy_loss(&log_prob, old_log_prob, advantages, 0.1).loss.mean(Kind::Float)
    })
}

fn grpo(transition: Transition, sign: f64) -> f64 {
    policy_gradient(transition, Levels { now: 0.9, next: 0.3 }, sign, |rewards| {
        group_advantages(rewards, &[0; IMAGES as usize], AdvantageScale::Group, 1e-4, 5.0).values
    })
}

#[test]
fn ddpo_arrives_and_with_flipped_advantages_leaves() {
    let ddpo = |sign| {
        let mut statistics = PromptStatistics::new(2 * IMAGES as usize, 16);
        let levels = Levels { now: 0.05, next: 0.6 };
        policy_gradient(Transition::Ddim { eta: 1.0 }, levels, sign, |rewards| {
            statistics.advantages(&[""; IMAGES as usize], rewards, 5.0).values
        })
    };
    let (left, flipped) = (ddpo(1.0), ddpo(-1.0));
    assert!(left < NEAR && flipped > 1.0, "{left}, flipped {flipped}");
}

#[test]
fn grpo_arrives_with_every_noise_and_with_flipped_advantages_leaves() {
    for transition in [
        Transition::FlowSde { noise: 0.3 },
        Transition::DanceGrpo { eta: 0.3 },
        Transition::Cps { noise: 0.8 },
    ] {
        let (left, flipped) = (grpo(transition, 1.0), grpo(transition, -1.0));
        assert!(left < NEAR && flipped > 1.0, "{transition:?}: {left}, flipped {flipped}");
    }
}

/// The model predicts `mean` as the clean image whatever the noise: v = (z - mean) / s.
fn velocity(noisy: &Tensor, sigma: &Tensor, mean: &Tensor) -> Tensor {
    (noisy - mean) / sigma.view([-1, 1, 1, 1])
}

fn nft(sign: f64) -> f64 {
    let target = normal(2, &ONE) * 2.0;
    let mut old = Tensor::zeros(ONE, (Kind::Float, Device::Cpu));
    distance_left(&target, |update, mean| {
        let decay = nft_decay(update, 0.001, 0.5);
        old = &old * decay + mean.detach() * (1.0 - decay);
        let clean = images_around(&old, 1000 + update);
        let advantages = group_advantages(
            &rewards(&clean, &target),
            &[0; IMAGES as usize],
            AdvantageScale::Group,
            1e-4,
            5.0,
        );
        let signed: Vec<f64> = advantages.values.iter().map(|advantage| sign * advantage).collect();
        let sigma = uniform(2000 + update, &[IMAGES]) * 0.8 + 0.1;
        let share = sigma.view([-1, 1, 1, 1]);
        let noisy = (1.0 - &share) * &clean + share * normal(3000 + update, &ALL);
        let [trained, before] = [mean, &old].map(|mean| velocity(&noisy, &sigma, mean));
        let good = floats(&optimality(&signed, 5.0));
        nft_loss(&noisy, &sigma, &clean, &trained, &before, &good, 1.0).mean(Kind::Float)
    })
}

#[test]
fn nft_arrives_and_with_flipped_advantages_leaves() {
    let (left, flipped) = (nft(1.0), nft(-1.0));
    assert!(left < NEAR && flipped > 1.0, "{left}, flipped {flipped}");
}

/// Pairs of images of the reference, of which the nearer one wins if `sign` is 1. The reference is replaced
/// by the trained policy every ten updates: at the target it has nothing left to learn.
fn dpo(sign: f64) -> f64 {
    let target = normal(2, &ONE) * 2.0;
    let mut reference = Tensor::zeros(ONE, (Kind::Float, Device::Cpu));
    distance_left(&target, |update, mean| {
        if update % 10 == 0 {
            reference = mean.detach().copy();
        }
        let [first, second] = [1000, 2000].map(|seed| images_around(&reference, seed + update));
        let [of_first, of_second] = [&first, &second].map(|images| floats(&rewards(images, &target)) * sign);
        let is_first = of_first.gt_tensor(&of_second).view([-1, 1, 1, 1]);
        let winner = first.where_self(&is_first, &second);
        let loser = second.where_self(&is_first, &first);
        let error = |images: &Tensor, mean: &Tensor| {
            (images - mean).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
        };
        let (loss, _) = diffusion_dpo_loss(
            &error(&winner, mean),
            &error(&loser, mean),
            &error(&winner, &reference),
            &error(&loser, &reference),
            10.0,
        );
        loss.mean(Kind::Float)
    })
}

#[test]
fn dpo_arrives_and_with_swapped_pairs_leaves() {
    let (left, flipped) = (dpo(1.0), dpo(-1.0));
    assert!(left < NEAR && flipped > 1.0, "{left}, flipped {flipped}");
}

fn rwr(sign: f64) -> f64 {
    let target = normal(2, &ONE) * 2.0;
    distance_left(&target, |update, mean| {
        let clean = images_around(mean, 1000 + update);
        let signed: Vec<f64> = rewards(&clean, &target).iter().map(|reward| sign * reward).collect();
        let weights = floats(&rwr_weights(&signed, 0.5)).view([-1, 1, 1, 1]);
        ((clean - mean).square() * weights).mean(Kind::Float)
    })
}

#[test]
fn rwr_arrives_and_with_flipped_rewards_leaves() {
    let (left, flipped) = (rwr(1.0), rwr(-1.0));
    assert!(left < NEAR && flipped > 1.0, "{left}, flipped {flipped}");
}
