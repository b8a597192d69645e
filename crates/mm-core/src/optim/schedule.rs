//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// The shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Half a cosine from the peak to the minimum (Loshchilov & Hutter 2017).
    #[default]
    Cosine,
    /// Linear from the peak to the minimum.
    Linear,
    /// Constant at the peak.
    Constant,
    /// `peak * sqrt(warmup / step)` (Vaswani et al. 2017, section 5.3), not below the minimum.
    InverseSqrt,
}

/// The learning rate of each step: linear warm-up from zero to the peak, then a [`ScheduleKind`].
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The shape after warm-up.
    pub kind: ScheduleKind,
    /// The peak rate.
    pub lr: f64,
    /// The lowest rate after warm-up.
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of the run.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let after = (step - self.warmup) as f64;
        let progress = (after / self.steps.saturating_sub(self.warmup).max(1) as f64).min(1.0);
        let share = match self.kind {
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Constant => 1.0,
            ScheduleKind::InverseSqrt => {
                let warmup = self.warmup.max(1) as f64;
                return (self.lr * (warmup / (after + warmup)).sqrt()).max(self.min_lr);
            }
        };
        self.min_lr + (self.lr - self.min_lr) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, lr: 1.0, min_lr: 0.1, warmup: 10, steps: 110 }
    }

    #[test]
    fn every_schedule_reaches_the_peak_in_warm_up() {
        for kind in
            [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Constant, ScheduleKind::InverseSqrt]
        {
            assert_eq!(schedule(kind).at(0), 0.1);
            assert_eq!(schedule(kind).at(9), 1.0);
            assert!((schedule(kind).at(10) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn schedules_have_the_values_of_their_formulas() {
        assert!((schedule(ScheduleKind::Cosine).at(60) - 0.55).abs() < 1e-12);
        assert!((schedule(ScheduleKind::Linear).at(60) - 0.55).abs() < 1e-12);
        assert!((schedule(ScheduleKind::InverseSqrt).at(40) - 0.5).abs() < 1e-12);
        assert_eq!(schedule(ScheduleKind::Constant).at(60), 1.0);
        assert!((schedule(ScheduleKind::Cosine).at(500) - 0.1).abs() < 1e-12);
    }
}
