//! What is watched beside the reward, and when a run stops.

use crate::RewardConfig;
use crate::moments::Moments;
use mm_core::config::{ConfigError, ConfigFile};
use mm_train::Evaluation;
use serde::{Deserialize, Serialize};

/// The metric that counts the guards that have fallen while the reward rose.
pub(crate) const GUARDS_FALLEN: &str = "guards_fallen";

/// `[guard]`: held-out prompts whose images are measured with the same noise before and after, and the bounds
/// whose crossing stops the run: a reward that rises while these fall is exploited.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// Prompts of each evaluation set, the first ones.
    pub prompts: usize,
    /// Images a prompt; diversity is the distance between them.
    pub images: usize,
    /// Steps of the sampler; none: those of the roll-outs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The guidance scale; none: that of the roll-outs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
    /// Rewards that are never trained on, such as a second judge or a CLIPScore (`kind = "clip"`).
    pub reward: Vec<RewardConfig>,
    /// A reward among them has fallen where its mean is below the initial model's by more than this many
    /// standard deviations of its scores.
    pub tolerance: f64,
    /// Diversity has fallen below this share of the initial model's.
    pub least_diversity: f64,
    /// The norm of predictions is this many times that of the initial model's, or the inverse.
    pub most_norm_ratio: f64,
    /// The KL of steps from the initial model, a mean over the elements of an image; none: unbounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_kl: Option<f64>,
    /// Evaluations in a row with a fallen guard that stop the run; 0: they are reported, and the run goes on.
    pub patience: u64,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            prompts: 64,
            images: 2,
            steps: None,
            guidance_scale: None,
            reward: Vec::new(),
            tolerance: 0.25,
            least_diversity: 0.5,
            most_norm_ratio: 1.5,
            most_kl: None,
            patience: 2,
        }
    }
}

impl GuardConfig {
    pub(crate) fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        file.check(self.prompts > 0, "guard.prompts", "must be at least 1")?;
        file.check(self.images > 0, "guard.images", "must be at least 1")?;
        file.check(self.steps != Some(0), "guard.steps", "must be at least 1")?;
        let guidance = self.guidance_scale.unwrap_or(1.0);
        file.check(guidance >= 1.0, "guard.guidance_scale", format!("must be at least 1, is {guidance}"))?;
        file.check(self.tolerance >= 0.0, "guard.tolerance", "must be at least 0")?;
        let share = self.least_diversity;
        file.check(
            (0.0..=1.0).contains(&share),
            "guard.least_diversity",
            format!("from 0 to 1, is {share}"),
        )?;
        file.check(self.most_norm_ratio > 1.0, "guard.most_norm_ratio", "must be above 1")
    }

    /// The guards that have fallen, by name, of models with these numbers.
    pub(crate) fn fallen(&self, numbers: &GuardNumbers) -> Vec<String> {
        let mut fallen: Vec<String> = Vec::new();
        for GuardReward { name, before, after } in &numbers.rewards {
            if after.mean < before.mean - self.tolerance * before.std {
                fallen.push(name.clone());
            }
        }
        if let Some([before, after]) = numbers.diversity
            && after < self.least_diversity * before
        {
            fallen.push("diversity".to_owned());
        }
        let ratio = numbers.norm_ratio;
        if ratio > self.most_norm_ratio || ratio < 1.0 / self.most_norm_ratio {
            fallen.push("norm_ratio".to_owned());
        }
        if self.most_kl.is_some_and(|most| numbers.kl > most) {
            fallen.push("kl".to_owned());
        }
        fallen
    }
}

/// A reward that is not trained on, of the images before and after.
pub(crate) struct GuardReward {
    pub name: String,
    pub before: Moments,
    pub after: Moments,
}

/// What guards compare.
pub(crate) struct GuardNumbers {
    pub rewards: Vec<GuardReward>,
    /// Before and after; none with one image a prompt.
    pub diversity: Option<[f64; 2]>,
    /// The norm of predictions, divided by that of the initial model's.
    pub norm_ratio: f64,
    pub kl: f64,
}

/// The evaluations in a row with a fallen guard, for the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardState {
    in_a_row: u64,
}

impl GuardState {
    /// Counts an evaluation; returns the reason that the run stops after it, if it does.
    pub fn observe(&mut self, evaluations: &[Evaluation], patience: u64) -> Option<String> {
        let has_fallen = |evaluation: &&Evaluation| evaluation.metric(GUARDS_FALLEN).unwrap_or(0.0) > 0.0;
        let fallen: Vec<&str> =
            evaluations.iter().filter(has_fallen).map(|evaluation| evaluation.set.as_str()).collect();
        self.in_a_row = if fallen.is_empty() { 0 } else { self.in_a_row + 1 };
        (patience > 0 && self.in_a_row >= patience).then(|| {
            format!(
                "the reward rises and guards fall on {}, {} evaluations in a row: the reward is exploited",
                fallen.join(", "),
                self.in_a_row
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_train::Metric;

    fn numbers(after: f64, diversity: f64, norm_ratio: f64) -> GuardNumbers {
        let spread = |mean| Moments { mean, std: 0.4 };
        let reward = GuardReward { name: "scene".into(), before: spread(0.5), after: spread(after) };
        GuardNumbers { rewards: vec![reward], diversity: Some([0.2, diversity]), norm_ratio, kl: 0.0 }
    }

    #[test]
    fn each_guard_falls_by_its_own_bound() {
        let config = GuardConfig::default();
        assert!(config.fallen(&numbers(0.45, 0.15, 1.2)).is_empty());
        assert_eq!(config.fallen(&numbers(0.3, 0.15, 1.2)), ["scene"]);
        assert_eq!(config.fallen(&numbers(0.6, 0.05, 1.0)), ["diversity"]);
        assert_eq!(config.fallen(&numbers(0.6, 0.2, 0.5)), ["norm_ratio"]);
        let bounded = GuardConfig { most_kl: Some(1e-3), ..GuardConfig::default() };
        assert_eq!(bounded.fallen(&GuardNumbers { kl: 1.0, ..numbers(0.6, 0.2, 1.0) }), ["kl"]);
    }

    #[test]
    fn a_run_stops_after_as_many_evaluations_in_a_row_as_the_patience() {
        let evaluation = |fallen: f64| {
            let metrics = vec![Metric::new(GUARDS_FALLEN, fallen)];
            vec![Evaluation { set: "held_out".into(), metrics, ..Evaluation::default() }]
        };
        let mut state = GuardState::default();
        assert_eq!(state.observe(&evaluation(1.0), 2), None);
        assert_eq!(state.observe(&evaluation(0.0), 2), None);
        assert_eq!(state.observe(&evaluation(2.0), 2), None);
        assert!(state.observe(&evaluation(1.0), 2).unwrap().contains("held_out"));
        assert_eq!(GuardState::default().observe(&evaluation(1.0), 0), None);
    }
}
