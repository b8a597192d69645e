//! ROUGE-L (Lin, 2004) as pycocoevalcap computes it.

use super::ngrams::Words;
use super::ptb;

/// How much recall weighs against precision.
const BETA: f64 = 1.2;

/// ROUGE-L of one tokenized hypothesis: the F-measure of the best precision and the best recall of a longest
/// common subsequence, which may be those of two references. An empty caption counts as one empty word, which
/// only another empty caption has. 0 without references.
pub fn rouge_l<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> f64 {
    let mut words = Words::default();
    let mut numbers = |tokens| ptb::spaced(tokens).map(|word| words.number(word)).collect::<Vec<_>>();
    let hypothesis = numbers(hypothesis);
    let mut precision = 0.0_f64;
    let mut recall = 0.0_f64;
    for reference in references {
        let reference = numbers(reference.as_ref());
        let common = common_subsequence(&hypothesis, &reference) as f64;
        precision = precision.max(common / hypothesis.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

/// The length of a longest common subsequence.
fn common_subsequence(a: &[u32], b: &[u32]) -> usize {
    // One row of the table: lengths[j] is that of the words of `a` so far and the first j of `b`.
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if word == other { diagonal + 1 } else { above.max(lengths[j]) };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_may_be_of_two_references() {
        // Of the first reference the precision is 2/3 and the recall 1, of the second 1 and 3/6.
        let score = rouge_l("a b c", &["a b", "a x b y c z"]);
        assert_eq!(score, 1.0);
    }

    #[test]
    fn the_common_subsequence_need_not_be_contiguous() {
        assert_eq!(common_subsequence(&[1, 2, 3, 4, 1], &[3, 4, 1, 2, 1, 3]), 3);
        assert_eq!(common_subsequence(&[], &[1]), 0);
    }

    #[test]
    fn empty_captions_have_one_word() {
        assert_eq!((rouge_l("", &[""]), rouge_l("", &["a"]), rouge_l("a", &[""])), (1.0, 0.0, 0.0));
        assert_eq!(rouge_l("a", &[] as &[&str]), 0.0);
    }
}
