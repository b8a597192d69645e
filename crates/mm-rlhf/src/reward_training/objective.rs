//! The judgements that a reward is trained on, and their losses.

use super::RewardBatch;
use mm_core::loss::{bradley_terry, plackett_luce};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The judgements that a reward is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// A rating of each image, a number in the label of its sample: squared error.
    Regression,
    /// Which of two images is preferred, or how probably: [`bradley_terry`].
    Preferences,
    /// Several images, the best first: [`plackett_luce`].
    Ranking,
}

impl Objective {
    /// The losses `[K, B]` of scores `[K, B, L]` by K members of the images of B items.
    pub(super) fn losses(self, scores: &Tensor, batch: &RewardBatch) -> Tensor {
        match self {
            Self::Regression => (scores.select(-1, 0).to_kind(Kind::Float) - &batch.targets).square(),
            Self::Preferences => bradley_terry(&scores.select(-1, 0), &scores.select(-1, 1), &batch.targets),
            Self::Ranking => plackett_luce(scores, &batch.mask),
        }
    }

    /// A number of a step to log, by name, over members and items: the mean absolute error, the share of
    /// pairs in the right order (a tie of scores or of labels counts half), or the share of lists with the
    /// best image first.
    pub(super) fn agreement(self, scores: &Tensor, batch: &RewardBatch) -> (&'static str, Tensor) {
        let scores = scores.detach().to_kind(Kind::Float);
        match self {
            Self::Regression => {
                ("absolute_error", (scores.select(-1, 0) - &batch.targets).abs().mean(Kind::Float))
            }
            Self::Preferences => {
                let order = (scores.select(-1, 0) - scores.select(-1, 1)).sign();
                let label = (&batch.targets - 0.5).sign();
                ("accuracy", (order * label + 1.0).mean(Kind::Float) * 0.5)
            }
            Self::Ranking => {
                let others = scores.masked_fill(&batch.mask.logical_not(), f64::NEG_INFINITY);
                let others = others.narrow(-1, 1, scores.size()[2] - 1).amax([-1i64].as_slice(), false);
                ("top_1", scores.select(-1, 0).greater_tensor(&others).to_kind(Kind::Float).mean(Kind::Float))
            }
        }
    }
}
