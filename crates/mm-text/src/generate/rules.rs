//! Rules on the scores of the next token.

use super::GenerationConfig;
use std::collections::HashSet;

/// The tokens that precede the next one in a text.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The prompt.
    pub prompt: &'a [u32],
    /// What was generated after it.
    pub generated: &'a [u32],
}

impl History<'_> {
    /// Prompt and generated tokens, in order.
    fn tokens(&self) -> impl DoubleEndedIterator<Item = u32> + Clone {
        self.prompt.iter().chain(self.generated).copied()
    }

    fn len(&self) -> usize {
        self.prompt.len() + self.generated.len()
    }
}

/// The rules of a [`GenerationConfig`], in transformers' order: repetition penalty, repeated n-grams, minimum
/// length, forced first and last token, suppressed tokens.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    config: &'a GenerationConfig,
    /// The end tokens of the model.
    eos: &'a [u32],
}

impl<'a> Rules<'a> {
    /// The rules of `config` for a model with the end tokens `eos`.
    pub fn new(config: &'a GenerationConfig, eos: &'a [u32]) -> Self {
        Self { config, eos }
    }

    /// Changes the `scores` (one a token: logits or log-probabilities) of the token after `history`. A token
    /// that is ruled out has minus infinity.
    pub fn apply(&self, scores: &mut [f32], history: History) {
        let config = self.config;
        if config.repetition_penalty != 1.0 {
            penalize_repetition(scores, history, config.repetition_penalty as f32);
        }
        if config.no_repeat_ngram_size > 0 {
            rule_out(scores, repeated_ngrams(history, config.no_repeat_ngram_size));
        }
        let new = history.generated.len();
        if new < config.min_new_tokens {
            rule_out(scores, self.eos.iter().copied());
        }
        if let Some(token) = config.forced_bos_token_id.filter(|_| history.len() == 1) {
            force(scores, token);
        }
        if let Some(token) = config.forced_eos_token_id.filter(|_| new + 1 == config.max_new_tokens) {
            force(scores, token);
        }
        rule_out(scores, config.suppress_tokens.iter().copied());
        // A forced first token is not the place where the text begins.
        let is_forced = config.forced_bos_token_id.is_some() && history.prompt.len() == 1;
        if new == usize::from(is_forced) {
            rule_out(scores, config.begin_suppress_tokens.iter().copied());
        }
    }
}

/// Each token of the history once, whatever its count.
fn penalize_repetition(scores: &mut [f32], history: History, penalty: f32) {
    for token in history.tokens().collect::<HashSet<_>>() {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// The tokens that would end a sequence of `size` tokens that the history has already.
fn repeated_ngrams(history: History, size: usize) -> Vec<u32> {
    let tokens: Vec<u32> = history.tokens().collect();
    let Some(start) = (tokens.len() + 1).checked_sub(size) else { return Vec::new() };
    let last = &tokens[start..];
    tokens.windows(size).filter(|ngram| ngram[..size - 1] == *last).map(|ngram| ngram[size - 1]).collect()
}

fn rule_out(scores: &mut [f32], tokens: impl IntoIterator<Item = u32>) {
    for token in tokens {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

fn force(scores: &mut [f32], token: u32) {
    scores.fill(f32::NEG_INFINITY);
    if let Some(score) = scores.get_mut(token as usize) {
        *score = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: f32 = f32::NEG_INFINITY;

    fn applied(config: &GenerationConfig, prompt: &[u32], generated: &[u32]) -> Vec<f32> {
        let mut scores = vec![1.0, -1.0, 2.0, -2.0, 0.5];
        Rules::new(config, &[4]).apply(&mut scores, History { prompt, generated });
        scores
    }

    #[test]
    fn the_repetition_penalty_counts_prompt_and_text_once() {
        let config = GenerationConfig { repetition_penalty: 2.0, ..GenerationConfig::default() };
        assert_eq!(applied(&config, &[0, 0], &[1, 1, 9]), [0.5, -2.0, 2.0, -2.0, 0.5]);
    }

    #[test]
    fn a_sequence_of_tokens_does_not_occur_twice() {
        let size = |size| GenerationConfig { no_repeat_ngram_size: size, ..GenerationConfig::default() };
        assert_eq!(applied(&size(2), &[0, 1], &[2, 0]), [1.0, OUT, 2.0, -2.0, 0.5]);
        assert_eq!(applied(&size(3), &[0, 1], &[2, 0, 1]), [1.0, -1.0, OUT, -2.0, 0.5]);
        assert_eq!(applied(&size(1), &[0], &[3]), [OUT, -1.0, 2.0, OUT, 0.5]);
        assert_eq!(applied(&size(9), &[0], &[1]), [1.0, -1.0, 2.0, -2.0, 0.5]);
    }

    #[test]
    fn the_end_token_waits_for_the_minimum_and_is_forced_at_the_limit() {
        let config = GenerationConfig { min_new_tokens: 2, ..GenerationConfig::default() };
        assert_eq!(applied(&config, &[0], &[1])[4], OUT);
        assert_eq!(applied(&config, &[0], &[1, 1])[4], 0.5);
        let config = GenerationConfig {
            max_new_tokens: 3,
            forced_bos_token_id: Some(3),
            forced_eos_token_id: Some(4),
            ..GenerationConfig::default()
        };
        assert_eq!(applied(&config, &[0], &[]), [OUT, OUT, OUT, 0.0, OUT]);
        assert_eq!(applied(&config, &[0, 1], &[]), [1.0, -1.0, 2.0, -2.0, 0.5]);
        assert_eq!(applied(&config, &[0], &[3, 1]), [OUT, OUT, OUT, OUT, 0.0]);
    }

    #[test]
    fn suppressed_tokens_never_occur_or_not_first() {
        let config = GenerationConfig {
            suppress_tokens: vec![0, 77],
            begin_suppress_tokens: vec![2],
            ..GenerationConfig::default()
        };
        assert_eq!(applied(&config, &[1], &[]), [OUT, -1.0, OUT, -2.0, 0.5]);
        assert_eq!(applied(&config, &[1], &[3]), [OUT, -1.0, 2.0, -2.0, 0.5]);
    }
}
