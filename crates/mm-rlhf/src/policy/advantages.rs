//! Advantages: rewards relative to those of other images of the same prompt.

use crate::moments::Moments;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// The epsilon of DDPO's [`PromptStatistics`].
const PROMPT_EPSILON: f64 = 1e-6;

/// The deviation that rewards are divided by, after the mean of their group is subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageScale {
    /// That of the group.
    Group,
    /// That of the whole batch, Flow-GRPO's default: groups with little variance do not count as much as
    /// groups with much.
    #[default]
    Batch,
}

/// The advantages of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// One for each sample.
    pub values: Vec<f64>,
    /// The number of groups, or of different prompts.
    pub groups: usize,
    /// The number of groups with equal rewards, which nothing can be learnt from.
    pub groups_without_variance: usize,
}

impl Advantages {
    /// (r - mean) / divisor, from -`clip` to `clip`, with the moments of each sample's group.
    fn of<G: Ord>(
        rewards: &[f64],
        groups: &[G],
        moments: &BTreeMap<G, Moments>,
        divisor: impl Fn(Moments) -> f64,
        clip: f64,
    ) -> Self {
        let advantage = |(reward, group): (&f64, &G)| match reward - moments[group].mean {
            // Not 0 / 0 if the group has no variance and the divisor no epsilon.
            0.0 => 0.0,
            difference => (difference / divisor(moments[group])).clamp(-clip, clip),
        };
        Self {
            values: rewards.iter().zip(groups).map(advantage).collect(),
            groups: moments.len(),
            groups_without_variance: moments.values().filter(|moments| moments.std == 0.0).count(),
        }
    }
}

/// The advantages of `rewards` within their groups: (r - mean of the group) / (std + `epsilon`), from -`clip`
/// to `clip` (Shao et al. 2024, GRPO, section 4.1.1). `group[i]` is the number of the group of sample i; the
/// numbers need not be consecutive. Groups with equal rewards get 0 and are counted. The deviation is the
/// population's. Flow-GRPO's `epsilon` is 1e-4, DanceGRPO's 1e-8.
///
/// # Panics
/// There is not one group for each reward.
pub fn group_advantages(
    rewards: &[f64],
    group: &[usize],
    scale: AdvantageScale,
    epsilon: f64,
    clip: f64,
) -> Advantages {
    assert_eq!(rewards.len(), group.len(), "each reward has a group");
    let mut members: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (&reward, &group) in rewards.iter().zip(group) {
        members.entry(group).or_default().push(reward);
    }
    let moments: BTreeMap<usize, Moments> =
        members.iter().map(|(&group, rewards)| (group, Moments::of(rewards.iter().copied()))).collect();
    let batch = Moments::of(rewards.iter().copied());
    let divisor = |group: Moments| match scale {
        AdvantageScale::Group => group.std + epsilon,
        AdvantageScale::Batch => batch.std + epsilon,
    };
    Advantages::of(rewards, group, &moments, divisor, clip)
}

/// DDPO's statistics of the last rewards of each prompt (Black et al. 2023, as in ddpo-pytorch), for batches
/// that have few images of a prompt. A part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptStatistics {
    capacity: usize,
    least: usize,
    rewards: BTreeMap<String, VecDeque<f64>>,
}

impl PromptStatistics {
    /// No rewards yet. Of each prompt the last `capacity` are kept, DDPO's 16 or 32. A prompt with fewer than
    /// `least`, DDPO's 16, is compared with the batch instead of with itself; so is every prompt if `least`
    /// is above `capacity`.
    pub fn new(capacity: usize, least: usize) -> Self {
        Self { capacity, least, rewards: BTreeMap::new() }
    }

    /// The advantages of `rewards`: (r - mean) / (std + 1e-6), from -`clip` to `clip`. The new rewards are
    /// among those that mean and deviation (the population's) are of. Without variance is a prompt with
    /// statistics of equal rewards.
    ///
    /// # Panics
    /// There is not one prompt for each reward.
    pub fn advantages(&mut self, prompts: &[&str], rewards: &[f64], clip: f64) -> Advantages {
        assert_eq!(rewards.len(), prompts.len(), "each reward has a prompt");
        for (&prompt, &reward) in prompts.iter().zip(rewards) {
            let kept = self.rewards.entry(prompt.to_owned()).or_default();
            kept.push_back(reward);
            if kept.len() > self.capacity {
                kept.pop_front();
            }
        }
        let batch = Moments::of(rewards.iter().copied());
        let of_prompt = |&prompt: &&str| {
            let kept = &self.rewards[prompt];
            if kept.len() < self.least { batch } else { Moments::of(kept.iter().copied()) }
        };
        let moments: BTreeMap<&str, Moments> =
            prompts.iter().map(|prompt| (*prompt, of_prompt(prompt))).collect();
        Advantages::of(rewards, prompts, &moments, |prompt| prompt.std + PROMPT_EPSILON, clip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_without_variance_get_nothing_and_are_counted() {
        // 0.1 three times has a mean that rounds to another number.
        let (rewards, group) = ([0.1, 1.0, 0.1, 3.0, 0.1, 7.0], [9, 4, 9, 4, 9, 0]);
        for scale in [AdvantageScale::Group, AdvantageScale::Batch] {
            let found = group_advantages(&rewards, &group, scale, 1e-8, 5.0);
            assert_eq!([0, 2, 4, 5].map(|index: usize| found.values[index]), [0.0; 4]);
            assert!(found.values[1] < -0.1 && found.values[3] == -found.values[1]);
            assert_eq!((found.groups, found.groups_without_variance), (3, 2));
        }
        let found = group_advantages(&rewards, &group, AdvantageScale::Group, 0.0, 0.5);
        assert_eq!(found.values, [0.0, -0.5, 0.0, 0.5, 0.0, 0.0]);
        let none = group_advantages(&[], &[], AdvantageScale::Batch, 1e-4, 5.0);
        assert_eq!(none, Advantages { values: vec![], groups: 0, groups_without_variance: 0 });
    }

    #[test]
    fn a_prompt_is_compared_with_the_batch_until_it_has_enough_rewards() {
        let mut statistics = PromptStatistics::new(3, 2);
        let found = statistics.advantages(&["cat", "dog"], &[1.0, 3.0], 5.0);
        assert!((found.values[0] + 1.0).abs() < 1e-5 && (found.values[1] - 1.0).abs() < 1e-5);
        // "cat" has the rewards 1 and 2 now, "dog" 3 and 3, "cow" one.
        let found = statistics.advantages(&["cat", "dog", "cow"], &[2.0, 3.0, 4.0], 5.0);
        assert!((found.values[0] - 1.0).abs() < 1e-5);
        assert_eq!(found.values[1], 0.0);
        assert!((found.values[2] - 1.0 / (2.0f64 / 3.0).sqrt()).abs() < 1e-5);
        assert_eq!((found.groups, found.groups_without_variance), (3, 1));
    }

    #[test]
    fn the_oldest_rewards_leave_and_the_rest_survives_a_checkpoint() {
        let mut statistics = PromptStatistics::new(3, 2);
        statistics.advantages(&["cat"; 3], &[100.0, 0.1, 0.7], 5.0);
        let written = serde_json::to_string(&statistics).unwrap();
        let mut read: PromptStatistics = serde_json::from_str(&written).unwrap();
        assert_eq!(read, statistics);
        let (found, again) =
            (read.advantages(&["cat"], &[0.4], 5.0), statistics.advantages(&["cat"], &[0.4], 5.0));
        assert_eq!(found, again);
        // The mean of 0.1, 0.7 and 0.4.
        assert!(found.values[0].abs() < 1e-6, "{found:?}");
    }
}
