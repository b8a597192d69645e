//! Losses of scores that people's preferences order: between two, and in a list.

use tch::{Kind, Tensor};

/// The Bradley-Terry loss of two scores `[..., N]` each: the cross-entropy of the softmax over both with
/// `preferred` `[N]`, the probabilities from 0 to 1 that the first is preferred, less the entropy of these
/// labels. It is `[..., N]`, at least 0, and 0 where the softmax equals the label: for a tie (0.5) at equal
/// scores. It is the loss of PickScore (Kirstain et al. 2023, <https://arxiv.org/abs/2305.01569>),
/// which has labels of 0, 0.5 and 1.
pub fn bradley_terry(first: &Tensor, second: &Tensor, preferred: &Tensor) -> Tensor {
    let difference = (first - second).to_kind(Kind::Float);
    let preferred = preferred.to_kind(Kind::Float);
    let other: Tensor = 1.0 - &preferred;
    let entropy = preferred.special_entr() + other.special_entr();
    -(difference.log_sigmoid() * preferred) - (-&difference).log_sigmoid() * other - entropy
}

/// The Plackett-Luce loss of lists of scores `[..., N, L]`, each from the most to the least preferred: minus
/// the log-probability of that order, where each place is a draw from the softmax over the scores that are
/// left (Xia et al. 2008, "Listwise approach to learning to rank": ListMLE). `mask` `[N, L]` (bool) is true
/// for the scores of a list and false for the padding behind them. It is `[..., N]`; of a list of two it is
/// [`bradley_terry`] with the label 1.
pub fn plackett_luce(scores: &Tensor, mask: &Tensor) -> Tensor {
    let scores = scores.to_kind(Kind::Float);
    let length = mask.size().last().copied().unwrap_or(0);
    let all = Tensor::ones([length, length], (Kind::Bool, mask.device()));
    let padding = all.triu(1).logical_and(&mask.logical_not().unsqueeze(-2)); // [N, L, L]
    // Row i has the scores from i on. That of a padded i is alone in its row, which adds 0.
    let is_hidden = all.tril(-1).logical_or(&padding);
    let left = scores.unsqueeze(-2).masked_fill(&is_hidden, f64::NEG_INFINITY); // [..., N, L, L]
    let losses = left.logsumexp([-1i64].as_slice(), false) - scores; // [..., N, L]
    losses.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;

    const LABELS: [f32; 5] = [1.0, 0.0, 0.5, 0.8, 0.25];

    fn numbers(x: &Tensor) -> Vec<f64> {
        Vec::try_from(x.to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    /// The gradient of the sum of `loss` at `x`, and the same by differences of `naive` in f64.
    fn check(x: &Tensor, loss: impl Fn(&Tensor) -> Tensor, naive: impl Fn(&[f64]) -> f64) {
        let leaf = x.copy().set_requires_grad(true);
        let value = loss(&leaf).sum(Kind::Float);
        let plain = numbers(x);
        assert!((value.double_value(&[]) - naive(&plain)).abs() < 1e-5, "{value:?} is {}", naive(&plain));
        value.backward();
        for (place, found) in numbers(&leaf.grad()).into_iter().enumerate() {
            let shifted = |by: f64| {
                let mut shifted = plain.clone();
                shifted[place] += by;
                naive(&shifted)
            };
            let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            assert!((found - expected).abs() < 1e-5, "{place}: {found} is {expected} by differences");
        }
    }

    #[test]
    fn two_scores_have_the_cross_entropy_less_the_labels_entropy_and_the_gradient_of_differences() {
        let scores = normal(1, &[2, LABELS.len() as i64]) * 2.0;
        let labels = Tensor::from_slice(&LABELS);
        let naive = |scores: &[f64]| {
            let (first, second) = scores.split_at(LABELS.len());
            let of_pair = |((first, second), &label): ((&f64, &f64), &f32)| {
                let share = first.exp() / (first.exp() + second.exp());
                [(f64::from(label), share), (1.0 - f64::from(label), 1.0 - share)]
                    .into_iter()
                    .filter(|(label, _)| *label > 0.0)
                    .map(|(label, share)| label * (label.ln() - share.ln()))
                    .sum::<f64>()
            };
            first.iter().zip(second).zip(&LABELS).map(of_pair).sum()
        };
        check(&scores, |x| bradley_terry(&x.get(0), &x.get(1), &labels), naive);
    }

    #[test]
    fn a_label_that_the_scores_agree_with_costs_nothing_and_large_scores_stay_finite() {
        let of = |first: f32, second: f32, label: f32| {
            bradley_terry(&Tensor::from(first), &Tensor::from(second), &Tensor::from(label)).double_value(&[])
        };
        assert!(of(3.0, 3.0, 0.5).abs() < 1e-6);
        assert!(of(3f32.ln(), 0.0, 0.75).abs() < 1e-6);
        assert!((of(0.0, 0.0, 1.0) - std::f64::consts::LN_2).abs() < 1e-6);
        assert!((of(-500.0, 500.0, 1.0) - 1000.0).abs() < 1e-3 && of(500.0, -500.0, 1.0) == 0.0);
    }

    #[test]
    fn a_list_costs_minus_the_log_probability_of_its_order_and_padding_nothing() {
        let lengths = [3usize, 1, 5];
        let scores = normal(2, &[3, 5]);
        let is_there = lengths.map(|length| std::array::from_fn::<bool, 5, _>(|place| place < length));
        let mask = Tensor::from_slice(is_there.as_flattened()).view([3, 5]);
        let naive = |scores: &[f64]| {
            let of_list = |(list, &length): (&[f64], &usize)| {
                let left = |place: usize| list[place..length].iter().map(|score| score.exp()).sum::<f64>();
                (0..length).map(|place| left(place).ln() - list[place]).sum::<f64>()
            };
            scores.chunks(5).zip(&lengths).map(of_list).sum()
        };
        check(&scores, |x| plackett_luce(x, &mask), naive);
        // Members of an ensemble are a dimension before.
        let twice = plackett_luce(&Tensor::stack(&[&scores, &scores], 0), &mask);
        assert_eq!(twice.size(), [2, 3]);
        assert_eq!(twice.get(0), plackett_luce(&scores, &mask));
        assert_eq!(twice.double_value(&[0, 1]), 0.0);
    }

    #[test]
    fn a_list_of_two_is_a_clear_preference() {
        let scores = normal(3, &[6, 2]);
        let mask = scores.ones_like().to_kind(Kind::Bool);
        let pairs = bradley_terry(
            &scores.select(1, 0),
            &scores.select(1, 1),
            &Tensor::ones_like(&scores.select(1, 0)),
        );
        let off = (plackett_luce(&scores, &mask) - pairs).abs().max().double_value(&[]);
        assert!(off < 1e-6, "{off}");
    }
}
