//! Metrics of a reward on judgements that it was not trained on.

use mm_vqa::metrics::calibration::{Answer, Answers};
use serde::Serialize;

/// The scores of two images beside the judgement of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoredPair {
    /// The probability that the first image is preferred: 1, 0, or 0.5 for a tie.
    pub preferred: f64,
    /// The score of the first image less that of the second.
    pub difference: f64,
    /// The standard deviation of this difference over the members of an ensemble; 0 of a single model.
    pub disagreement: f64,
}

impl ScoredPair {
    /// The probability of the reward that the first image is preferred, from 0 to 1: the softmax over both
    /// scores.
    pub fn probability(&self) -> f64 {
        1.0 / (1.0 + (-self.difference).exp())
    }

    /// Whether the scores have the order of the judgement, from 0 to 1: equal scores count half. None for a
    /// tie, which has no order.
    pub fn accuracy(&self) -> Option<f64> {
        let label = self.preferred - 0.5;
        let agreement = label * self.difference;
        match label == 0.0 {
            true => None,
            false if agreement == 0.0 => Some(0.5),
            false => Some(if agreement > 0.0 { 1.0 } else { 0.0 }),
        }
    }
}

/// The share of pairs whose scores have the order of the judgement: ties among the judgements are left out,
/// and equal scores count half. None where all are ties.
pub fn pair_accuracy(pairs: &[ScoredPair]) -> Option<f64> {
    mean(pairs.iter().filter_map(ScoredPair::accuracy))
}

/// The mean squared difference of the reward's probability and the judgement, from 0 to 1, ties included
/// (Brier 1950). A reward that knows nothing has 0.25 where there are no ties. None without pairs.
pub fn brier_score(pairs: &[ScoredPair]) -> Option<f64> {
    mean(pairs.iter().map(|pair| (pair.probability() - pair.preferred).powi(2)))
}

/// The pairs as answers that can be more or less sure: the confidence in the image of the higher score, from
/// 0.5 to 1, and the probability that it is preferred. The order of the two images does not matter.
///
/// # Errors
/// There are no pairs, or a number is not finite.
pub fn preference_answers(pairs: &[ScoredPair]) -> mm_vqa::metrics::Result<Answers> {
    let answer = |pair: &ScoredPair| {
        let probability = pair.probability();
        match probability >= 0.5 {
            true => Answer { confidence: probability, score: pair.preferred },
            false => Answer { confidence: 1.0 - probability, score: 1.0 - pair.preferred },
        }
    };
    Answers::new(pairs.iter().map(answer).collect())
}

/// How well the disagreement separates pairs in the wrong order from those in the right one: the probability
/// that it is larger for a wrong one, where equal ones count half (the area under the ROC curve). 0.5 is
/// chance. None where all pairs are right or all are wrong; ties and equal scores are left out.
pub fn disagreement_auroc(pairs: &[ScoredPair]) -> Option<f64> {
    let of = |accuracy: f64| {
        let pairs = pairs.iter().filter(move |pair| pair.accuracy() == Some(accuracy));
        pairs.map(|pair| pair.disagreement)
    };
    let wrong: Vec<f64> = of(0.0).collect();
    let all: Vec<f64> = wrong.iter().copied().chain(of(1.0)).collect();
    let (positives, negatives) = (wrong.len() as f64, (all.len() - wrong.len()) as f64);
    let sum: f64 = ranks(&all)[..wrong.len()].iter().sum();
    // The Mann-Whitney U over its largest value.
    let larger = sum - positives * (positives + 1.0) / 2.0;
    (positives * negatives > 0.0).then(|| larger / (positives * negatives))
}

/// Pearson's correlation, from -1 to 1. None where one of the two is constant.
///
/// # Panics
/// The lengths differ.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "a correlation is of pairs of numbers");
    let (mean_x, mean_y) = (mean(x.iter().copied())?, mean(y.iter().copied())?);
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| of(x - mean_x, y - mean_y)).sum()
    };
    let scale = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    (scale > 0.0).then(|| sum(&|x, y| x * y) / scale)
}

/// Spearman's rank correlation, from -1 to 1: [`pearson`] of the ranks, equal numbers having the mean of
/// theirs. None where one of the two is constant.
///
/// # Panics
/// The lengths differ.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

/// The place of each number in their order, from 1; equal numbers have the mean of theirs.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&one, &other| x[one].total_cmp(&x[other]));
    let (mut ranks, mut below) = (vec![0.0; x.len()], 0);
    for equal in order.chunk_by(|&one, &other| x[one] == x[other]) {
        for &index in equal {
            ranks[index] = below as f64 + (equal.len() + 1) as f64 / 2.0;
        }
        below += equal.len();
    }
    ranks
}

/// The mean; none of no numbers.
pub(super) fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = numbers.fold((0.0, 0), |(sum, count), number| (sum + number, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_vqa::metrics::calibration::Binning;

    fn pair(preferred: f64, difference: f64, disagreement: f64) -> ScoredPair {
        ScoredPair { preferred, difference, disagreement }
    }

    fn close(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-12), "{found:?}, not {expected}");
    }

    #[test]
    fn accuracy_leaves_ties_out_and_counts_equal_scores_half() {
        let pairs = [pair(1.0, 2.0, 0.0), pair(0.3, 0.1, 0.0), pair(0.0, 0.0, 0.0), pair(0.5, 9.0, 0.0)];
        close(pair_accuracy(&pairs), 0.5);
        assert_eq!(pair_accuracy(&pairs[3..]), None);
    }

    #[test]
    fn probabilities_are_measured_whichever_image_is_first() {
        let odds = 3f64.ln(); // a probability of 3/4
        let pairs = [pair(1.0, odds, 0.0), pair(0.0, odds, 0.0), pair(0.5, 0.0, 0.0)];
        close(brier_score(&pairs), (0.0625 + 0.5625 + 0.0) / 3.0);
        let swapped = pairs.map(|ScoredPair { preferred, difference, disagreement }| {
            pair(1.0 - preferred, -difference, disagreement)
        });
        close(brier_score(&swapped), (0.0625 + 0.5625 + 0.0) / 3.0);
        for pairs in [pairs, swapped] {
            let answers = preference_answers(&pairs).unwrap();
            // Two of confidence 3/4, of which one is right, and a tie of confidence 1/2.
            let error = answers.expected_calibration_error(Binning::EqualWidth, 15).unwrap();
            close(Some(error), (2.0 * 0.25 + 0.0) / 3.0);
        }
        assert!(preference_answers(&[]).is_err() && brier_score(&[]).is_none());
    }

    #[test]
    fn disagreement_separates_wrong_pairs_by_the_share_of_right_ones_below() {
        let wrong = [pair(1.0, -1.0, 0.9), pair(0.0, 1.0, 0.3)];
        let right = [pair(1.0, 1.0, 0.3), pair(0.0, -1.0, 0.1)];
        // 0.9 is above both; 0.3 is above one and equal to the other.
        close(disagreement_auroc(&[wrong, right].concat()), 3.5 / 4.0);
        assert_eq!(disagreement_auroc(&right), None);
        assert_eq!(disagreement_auroc(&[]), None);
    }

    #[test]
    fn correlations_are_those_of_a_computation_by_hand() {
        close(pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), 1.0);
        close(pearson(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]), 0.5);
        close(spearman(&[1.0, 20.0, 300.0], &[-1.0, -5.0, -6.0]), -1.0);
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 0.0]), [3.5, 2.0, 3.5, 1.0]);
        assert_eq!((pearson(&[1.0, 1.0], &[1.0, 2.0]), spearman(&[], &[])), (None, None));
    }
}
