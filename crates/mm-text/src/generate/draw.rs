//! Drawing of tokens: the distribution that they are drawn from, and the draws.

use super::GenerationConfig;
use mm_core::seed;

/// Shapes `scores` (logits or log-probabilities) as `config` sets: temperature, top-k, top-p. At least
/// `min_kept` tokens stay; tokens that are not drawn from have minus infinity.
pub fn shape_distribution(scores: &mut [f32], config: &GenerationConfig, min_kept: usize) {
    if config.temperature != 1.0 {
        let temperature = config.temperature as f32;
        scores.iter_mut().for_each(|score| *score /= temperature);
    }
    if config.top_k > 0 {
        keep_top_k(scores, config.top_k.max(min_kept));
    }
    if config.top_p < 1.0 {
        keep_top_p(scores, config.top_p as f32, min_kept);
    }
}

/// Keeps the `k` largest scores, and those equal to the last of them.
fn keep_top_k(scores: &mut [f32], k: usize) {
    if k >= scores.len() {
        return;
    }
    let mut sorted = scores.to_vec();
    let (_, &mut threshold, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    scores.iter_mut().filter(|score| **score < threshold).for_each(|score| *score = f32::NEG_INFINITY);
}

/// Keeps the smallest set of most probable tokens whose probabilities sum to more than `p`, at least
/// `min_kept` (Holtzman et al. 2020, section 3.1).
fn keep_top_p(scores: &mut [f32], p: f32, min_kept: usize) {
    let mut ascending: Vec<usize> = (0..scores.len()).filter(|&token| scores[token].is_finite()).collect();
    ascending.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let Some(&largest) = ascending.last() else { return };
    let probability = |token: usize| f64::from((scores[token] - scores[largest]).exp());
    let total: f64 = ascending.iter().map(|&token| probability(token)).sum();
    let mut cumulative = 0.0;
    let removable = ascending.len().saturating_sub(min_kept.max(1));
    let removed = ascending[..removable]
        .iter()
        .take_while(|&&token| {
            cumulative += probability(token) / total;
            cumulative <= f64::from(1.0 - p)
        })
        .count();
    for &token in &ascending[..removed] {
        scores[token] = f32::NEG_INFINITY;
    }
}

/// A number from 0 to below 1, the `index`-th of `seed`.
fn uniform(seed: u64, index: u64) -> f64 {
    (seed::derive(seed, "token", index) >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws a token from the softmax of `scores`, by the `index`-th number of `seed`. A row without any finite
/// score gives its first token.
pub fn draw(scores: &[f32], seed: u64, index: u64) -> usize {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |score: f32| f64::from((score - largest).exp());
    let total: f64 = scores.iter().map(|&score| weight(score)).sum();
    let mut left = uniform(seed, index) * total;
    let mut last = 0;
    for (token, &score) in scores.iter().enumerate() {
        let weight = weight(score);
        if weight > 0.0 {
            if left < weight {
                return token;
            }
            left -= weight;
            last = token;
        }
    }
    last
}

/// Draws up to `count` of the candidates, given by their scores, without replacement and in the order of the
/// draws, from the softmax of the scores, by the `step`-th numbers of `seed`: the candidates whose scores
/// plus Gumbel noise are largest (Kool et al. 2019, section 2.3).
pub fn draw_without_replacement(scores: &[(usize, f32)], count: usize, seed: u64, step: u64) -> Vec<usize> {
    let seed = seed::derive(seed, "step", step);
    let noisy = |&(candidate, score): &(usize, f32)| {
        let uniform = uniform(seed, candidate as u64).max(f64::MIN_POSITIVE);
        (f64::from(score) - (-uniform.ln()).ln(), candidate)
    };
    let mut noisy: Vec<(f64, usize)> = scores.iter().map(noisy).collect();
    noisy.sort_by(|a, b| b.0.total_cmp(&a.0));
    noisy.into_iter().take(count).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(scores: &[f32], config: &GenerationConfig) -> Vec<usize> {
        let mut scores = scores.to_vec();
        shape_distribution(&mut scores, config, 1);
        (0..scores.len()).filter(|&token| scores[token].is_finite()).collect()
    }

    #[test]
    fn top_k_keeps_ties_with_the_last() {
        let config = |top_k| GenerationConfig { top_k, ..GenerationConfig::default() };
        let scores = [1.0, 3.0, 2.0, 2.0, 0.0];
        assert_eq!(kept(&scores, &config(2)), [1, 2, 3]);
        assert_eq!(kept(&scores, &config(1)), [1]);
        assert_eq!(kept(&scores, &config(9)), [0, 1, 2, 3, 4]);
        assert_eq!(kept(&scores, &config(0)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_above_p() {
        let config = |top_p| GenerationConfig { top_k: 0, top_p, ..GenerationConfig::default() };
        let scores = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
        assert_eq!(kept(&scores, &config(0.4)), [0]);
        assert_eq!(kept(&scores, &config(0.6)), [0, 1]);
        assert_eq!(kept(&scores, &config(0.9)), [0, 1, 2]);
        assert_eq!(kept(&scores, &config(1e-9)), [0]);
    }

    #[test]
    fn draws_follow_the_distribution_and_are_fixed_by_the_seed() {
        let scores = [0.5f32, 0.3, 0.2, 0.0].map(f32::ln);
        let mut counts = [0i32; 4];
        (0..20_000).for_each(|index| counts[draw(&scores, 7, index)] += 1);
        for (count, expected) in counts.iter().zip([10_000, 6_000, 4_000, 0]) {
            assert!((count - expected).abs() < 400, "{counts:?}");
        }
        assert_eq!(draw(&scores, 7, 3), draw(&scores, 7, 3));
        assert_eq!(draw(&[f32::NEG_INFINITY; 3], 7, 3), 0);
    }

    #[test]
    fn draws_without_replacement_differ_and_their_first_follows_the_distribution() {
        let scores: Vec<(usize, f32)> = [0.6f32, 0.3, 0.1].map(f32::ln).into_iter().enumerate().collect();
        let mut counts = [0i32; 3];
        for step in 0..20_000 {
            let drawn = draw_without_replacement(&scores, 2, 7, step);
            assert!(drawn.len() == 2 && drawn[0] != drawn[1]);
            counts[drawn[0]] += 1;
        }
        for (count, expected) in counts.iter().zip([12_000, 6_000, 2_000]) {
            assert!((count - expected).abs() < 400, "{counts:?}");
        }
        assert_eq!(draw_without_replacement(&scores, 9, 7, 0).len(), 3);
    }
}
