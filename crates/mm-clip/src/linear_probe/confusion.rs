//! The confusion matrix of a classifier.

/// Counts of predictions for each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// `[truth][prediction]`.
    counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts predictions `said` against `truth`: classes below `class_count`, for the same samples.
    pub(super) fn new(truth: &[usize], said: &[usize], class_count: usize) -> Self {
        let mut counts = vec![vec![0; class_count]; class_count];
        for (&truth, &said) in truth.iter().zip(said) {
            counts[truth][said] += 1;
        }
        Self { counts }
    }

    /// The share of correct predictions.
    pub fn accuracy(&self) -> f64 {
        let right: usize = self.counts.iter().enumerate().map(|(class, said)| said[class]).sum();
        right as f64 / self.counts.iter().flatten().sum::<usize>() as f64
    }

    /// The mean of the recalls of all classes with samples: a rare class counts as much as a common one
    /// (balanced accuracy in VTAB and scikit-learn).
    pub fn mean_per_class_accuracy(&self) -> f64 {
        let classes =
            self.counts.iter().enumerate().map(|(class, said)| (said[class], said.iter().sum::<usize>()));
        let shares: Vec<f64> =
            classes.filter(|(_, all)| *all > 0).map(|(right, all)| right as f64 / all as f64).collect();
        shares.iter().sum::<f64>() / shares.len() as f64
    }

    /// The `limit` most frequent confusions: truth, prediction and count.
    pub fn most_confused(&self, limit: usize) -> Vec<(usize, usize, usize)> {
        let all = self.counts.iter().enumerate().flat_map(|(truth, said)| {
            said.iter().enumerate().map(move |(said, &count)| (truth, said, count))
        });
        let mut confused: Vec<_> = all.filter(|(truth, said, count)| truth != said && *count > 0).collect();
        // Stable: equal counts stay in the order of the classes.
        confused.sort_by_key(|&(_, _, count)| std::cmp::Reverse(count));
        confused.truncate(limit);
        confused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rare_class_counts_as_much_as_a_common_one() {
        // Eight of class 0, of which six are found; two of class 1, found; class 2 has none.
        let truth = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        let said = [0, 0, 0, 0, 0, 0, 1, 2, 1, 1];
        let confusion = Confusion::new(&truth, &said, 3);
        assert_eq!((confusion.accuracy(), confusion.mean_per_class_accuracy()), (0.8, 0.875));
    }

    #[test]
    fn what_is_confused_most_comes_first_and_what_is_right_never() {
        let truth = [0, 0, 0, 1, 1, 1, 2, 2];
        let said = [0, 2, 1, 2, 2, 1, 2, 0];
        let confusion = Confusion::new(&truth, &said, 3);
        assert_eq!(confusion.most_confused(3), [(1, 2, 2), (0, 1, 1), (0, 2, 1)]);
    }
}
