//! Cross-entropy over the tokens of a text.

use tch::{Kind, Reduction, Tensor};

/// The label that [`token_cross_entropy`] ignores, as PyTorch's `cross_entropy` does.
pub const IGNORED_LABEL: i64 = -100;

/// The sum over tokens of the cross-entropy of `logits` `[N, vocab]` with `labels` `[N]` (i64), where labels
/// of [`IGNORED_LABEL`] add nothing. `label_smoothing` moves this share of each label's probability to all
/// tokens evenly (Szegedy et al. 2016, section 7). Divided by the number of labels it is the loss of
/// transformers' language models.
///
/// It is a sum because the number of labels differs between the processes of a run: the mean over all of them
/// is the sum of their sums over the sum of their numbers.
pub fn token_cross_entropy(logits: &Tensor, labels: &Tensor, label_smoothing: f64) -> Tensor {
    logits.to_kind(Kind::Float).cross_entropy_loss(
        labels,
        None::<Tensor>,
        Reduction::Sum,
        IGNORED_LABEL,
        label_smoothing,
    )
}

/// As [`token_cross_entropy`], each label with its own factor `weights` `[N]`: that of an answer by its share
/// of all answers to a question, as BLIP is trained (Li et al. 2022, section 4.4).
pub fn weighted_token_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    weights: &Tensor,
    label_smoothing: f64,
) -> Tensor {
    let losses = logits.to_kind(Kind::Float).cross_entropy_loss(
        labels,
        None::<Tensor>,
        Reduction::None,
        IGNORED_LABEL,
        label_smoothing,
    );
    (losses * weights).sum(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;

    const VOCAB: i64 = 7;

    fn labels() -> Tensor {
        Tensor::from_slice(&[3i64, IGNORED_LABEL, 0, 6, IGNORED_LABEL])
    }

    /// The formula, one label at a time.
    fn naive(logits: &Tensor, label_smoothing: f64) -> f64 {
        let log_probs = logits.to_kind(Kind::Double).log_softmax(-1, None);
        let labels = Vec::<i64>::try_from(labels()).unwrap();
        let of_label = |(row, &label): (i64, &i64)| {
            if label == IGNORED_LABEL {
                return 0.0;
            }
            let row = log_probs.get(row);
            let smooth = row.mean(Kind::Double).double_value(&[]);
            -(1.0 - label_smoothing) * row.double_value(&[label]) - label_smoothing * smooth
        };
        (0..).zip(&labels).map(of_label).sum()
    }

    #[test]
    fn it_is_the_sum_over_labels_that_are_not_ignored() {
        let logits = normal(1, &[5, VOCAB]);
        for label_smoothing in [0.0, 0.1] {
            let found = token_cross_entropy(&logits, &labels(), label_smoothing).double_value(&[]);
            assert!((found - naive(&logits, label_smoothing)).abs() < 1e-5, "{found}");
        }
    }

    #[test]
    fn its_gradient_is_that_of_differences_and_zero_where_labels_are_ignored() {
        for label_smoothing in [0.0, 0.1] {
            let logits = normal(1, &[5, VOCAB]).set_requires_grad(true);
            token_cross_entropy(&logits, &labels(), label_smoothing).backward();
            let gradient = logits.grad();
            for row in 0..5 {
                for column in 0..VOCAB {
                    let shifted = |by: f64| {
                        let shifted = logits.detach().to_kind(Kind::Double);
                        let mut place = shifted.get(row).get(column);
                        let _ = place.g_add_scalar_(by);
                        naive(&shifted, label_smoothing)
                    };
                    let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                    let found = gradient.double_value(&[row, column]);
                    assert!((found - expected).abs() < 1e-5, "{found} is {expected} by differences");
                }
            }
            assert_eq!(gradient.get(1).abs().max().double_value(&[]), 0.0);
        }
    }
    #[test]
    fn weights_are_factors_of_the_labels_loss_and_gradient() {
        let weights = Tensor::from_slice(&[0.3f32, 5.0, 1.0, 0.0, 5.0]);
        let logits = normal(1, &[5, VOCAB]).set_requires_grad(true);
        let found = weighted_token_cross_entropy(&logits, &labels(), &weights, 0.1);
        let of_row = |row: i64| {
            let (logits, labels) = (logits.detach().narrow(0, row, 1), labels().narrow(0, row, 1));
            token_cross_entropy(&logits, &labels, 0.1).double_value(&[])
        };
        let expected = 0.3 * of_row(0) + of_row(2);
        assert!((found.double_value(&[]) - expected).abs() < 1e-5);
        found.backward();
        let weighted = logits.grad();
        let plain = normal(1, &[5, VOCAB]).set_requires_grad(true);
        token_cross_entropy(&plain, &labels(), 0.1).backward();
        let difference = |row: i64, weight: f64| {
            (weighted.get(row) - plain.grad().get(row) * weight).abs().max().double_value(&[])
        };
        for (row, weight) in [(0, 0.3), (1, 1.0), (2, 1.0), (3, 0.0)] {
            assert!(difference(row, weight) < 1e-6, "row {row}");
        }
    }
}
