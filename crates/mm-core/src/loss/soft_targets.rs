//! Classification losses with several answers of different weight, as questions about images have.

use tch::{Kind, Reduction, Tensor};

/// Binary cross-entropy of `logits` `[B, C]` with `targets` `[B, C]` from 0 to 1: the sum over classes, the
/// mean over rows. It is the mean over all elements times C, the loss of transformers'
/// `ViltForQuestionAnswering` and of the bottom-up top-down model (Teney et al. 2018, section 3.6). A row
/// without any target says that all answers are wrong.
pub fn soft_target_bce(logits: &Tensor, targets: &Tensor) -> Tensor {
    let rows = logits.size()[0] as f64;
    let logits = logits.to_kind(Kind::Float);
    let none = None::<&Tensor>;
    logits.binary_cross_entropy_with_logits(&targets.to_kind(Kind::Float), none, none, Reduction::Sum) / rows
}

/// Cross-entropy of the softmax of `logits` `[B, C]` with `targets` `[B, C]` of at least 0, each row divided
/// by its sum: the mean over rows, and the number of rows without any target (i64, a scalar on the device of
/// the logits), which add 0 to the mean.
pub fn soft_target_cross_entropy(logits: &Tensor, targets: &Tensor) -> (Tensor, Tensor) {
    let rows = logits.size()[0] as f64;
    let targets = targets.to_kind(Kind::Float);
    let sums = targets.sum_dim_intlist([1i64].as_slice(), true, Kind::Float); // [B, 1]
    let is_empty = sums.le(0.0);
    let targets = targets / sums.masked_fill(&is_empty, 1.0);
    let log_probs = logits.to_kind(Kind::Float).log_softmax(-1, None);
    (-(targets * log_probs).sum(Kind::Float) / rows, is_empty.sum(Kind::Int64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{normal, uniform};

    const ROWS: i64 = 4;
    const CLASSES: i64 = 5;

    /// Targets as the official metric gives them, and a row without any.
    fn targets() -> Tensor {
        Tensor::from_slice(&[
            1.0f32, 0.0, 0.3, 0.0, 0.0, //
            0.0, 0.0, 0.0, 0.0, 0.0, //
            0.0, 0.9, 0.6, 0.6, 0.0, //
            0.0, 0.0, 0.0, 0.0, 1.0,
        ])
        .view([ROWS, CLASSES])
    }

    /// The value of a loss by its formula for one element of a row, given the row's logits and targets.
    fn naive(logits: &Tensor, targets: &Tensor, of_element: impl Fn(&[f64], &[f64], usize) -> f64) -> f64 {
        let rows = |x: &Tensor| Vec::<Vec<f64>>::try_from(x.to_kind(Kind::Double)).unwrap();
        let (logits, targets) = (rows(logits), rows(targets));
        let row = |(logits, targets): (&Vec<f64>, &Vec<f64>)| {
            (0..logits.len()).map(|class| of_element(logits, targets, class)).sum::<f64>()
        };
        logits.iter().zip(&targets).map(row).sum::<f64>() / logits.len() as f64
    }

    fn naive_bce(logits: &Tensor, targets: &Tensor) -> f64 {
        naive(logits, targets, |logits, targets, class| {
            let probability = 1.0 / (1.0 + (-logits[class]).exp());
            -targets[class] * probability.ln() - (1.0 - targets[class]) * (1.0 - probability).ln()
        })
    }

    fn naive_cross_entropy(logits: &Tensor, targets: &Tensor) -> f64 {
        naive(logits, targets, |logits, targets, class| {
            let (sum, normalizer) =
                (targets.iter().sum::<f64>(), logits.iter().map(|logit| logit.exp()).sum::<f64>());
            if sum == 0.0 { 0.0 } else { -targets[class] / sum * (logits[class] - normalizer.ln()) }
        })
    }

    /// Compares a loss and its gradient with a naive value and its differences.
    fn check(loss: impl Fn(&Tensor, &Tensor) -> Tensor, naive: impl Fn(&Tensor, &Tensor) -> f64) {
        let logits = normal(1, &[ROWS, CLASSES]).set_requires_grad(true);
        let value = loss(&logits, &targets());
        let expected = naive(&logits.detach(), &targets());
        assert!((value.double_value(&[]) - expected).abs() < 1e-5, "{value:?} is not {expected}");
        value.backward();
        for row in 0..ROWS {
            for class in 0..CLASSES {
                let shifted = |by: f64| {
                    let shifted = logits.detach().to_kind(Kind::Double);
                    let mut place = shifted.get(row).get(class);
                    let _ = place.g_add_scalar_(by);
                    naive(&shifted, &targets())
                };
                let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                let found = logits.grad().double_value(&[row, class]);
                assert!((found - expected).abs() < 1e-5, "{found} is {expected} by differences");
            }
        }
    }

    #[test]
    fn bce_is_the_sum_over_classes_with_the_gradient_of_differences() {
        check(soft_target_bce, naive_bce);
        let (logits, targets) = (normal(2, &[3, 7]), uniform(3, &[3, 7]));
        let none = None::<&Tensor>;
        let mean = logits.binary_cross_entropy_with_logits(&targets, none, none, Reduction::Mean) * 7.0;
        let difference = (soft_target_bce(&logits, &targets) - mean).double_value(&[]);
        assert!(difference.abs() < 1e-5, "{difference}");
    }

    #[test]
    fn cross_entropy_is_of_targets_of_sum_one_with_the_gradient_of_differences() {
        check(|logits, targets| soft_target_cross_entropy(logits, targets).0, naive_cross_entropy);
    }

    #[test]
    fn rows_without_a_target_add_nothing_to_cross_entropy_and_are_counted() {
        let logits = normal(1, &[ROWS, CLASSES]).set_requires_grad(true);
        let (loss, without) = soft_target_cross_entropy(&logits, &targets());
        assert_eq!(without.int64_value(&[]), 1);
        loss.backward();
        assert_eq!(logits.grad().get(1).abs().max().double_value(&[]), 0.0);
        let (loss, without) = soft_target_cross_entropy(&logits, &targets().zeros_like());
        assert_eq!((loss.double_value(&[]), without.int64_value(&[])), (0.0, ROWS));
    }
}
