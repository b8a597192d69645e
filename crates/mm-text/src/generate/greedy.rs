//! Greedy search and sampling: each text is continued for itself.

use super::Hypothesis;
use super::draw::{draw, shape_distribution};
use super::rules::{History, Rules};
use super::search::{Continuation, Logits, Search, Settings};
use mm_core::seed;

/// The texts of one prompt that are continued independently: one by the most probable tokens, or several
/// samples.
pub(super) struct Independent<'a> {
    settings: Settings<'a>,
    texts: Vec<Hypothesis>,
    /// The seed of each text's draws.
    seeds: Vec<u64>,
    is_first: bool,
}

impl<'a> Independent<'a> {
    /// No token yet.
    pub fn new(settings: Settings<'a>) -> Self {
        let count = if settings.config.do_sample { settings.config.num_return_sequences } else { 1 };
        let seeds = (0..count as u64).map(|text| seed::derive(settings.seed, "text", text)).collect();
        Self { settings, texts: vec![Hypothesis::default(); count], seeds, is_first: true }
    }

    /// The newest token of the first text.
    pub fn last_token(&self) -> Option<u32> {
        self.texts.first()?.tokens.last().copied()
    }
}

impl Search for Independent<'_> {
    fn advance(&mut self, logits: &Logits) -> Option<Continuation> {
        let Settings { config, eos, prompt, .. } = self.settings;
        let rules = Rules::new(config, eos);
        let is_done = |text: &Hypothesis| text.finished || text.tokens.len() == config.max_new_tokens;
        for (index, text) in self.texts.iter_mut().enumerate().filter(|(_, text)| !is_done(text)) {
            let row = logits.row(if self.is_first { 0 } else { index });
            let mut scores = row.logits.to_vec();
            rules.apply(&mut scores, History { prompt, generated: &text.tokens });
            let token = if config.do_sample {
                shape_distribution(&mut scores, config, 1);
                draw(&scores, self.seeds[index], text.tokens.len() as u64)
            } else {
                largest(&scores)
            };
            text.log_probs.push(row.logits[token] - row.log_sum_exp);
            text.tokens.push(token as u32);
            text.finished = eos.contains(&(token as u32));
        }
        let parents = if self.is_first { vec![0; self.texts.len()] } else { (0..self.texts.len()).collect() };
        self.is_first = false;
        if self.texts.iter().all(is_done) {
            return None;
        }
        // A text that is done waits for the others: the token goes nowhere.
        let tokens = self.texts.iter().map(|text| text.tokens.last().copied().unwrap_or(0)).collect();
        Some(Continuation { tokens, parents })
    }

    fn finish(self: Box<Self>) -> Vec<Hypothesis> {
        let length_penalty = self.settings.config.length_penalty;
        let mut texts = self.texts;
        for text in &mut texts {
            let length = (text.tokens.len().max(1) as f64).powf(length_penalty);
            text.score =
                (text.log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum::<f64>() / length) as f32;
        }
        texts.sort_by(|a, b| b.score.total_cmp(&a.score));
        texts
    }
}

/// The first of the largest scores.
fn largest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (token, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = token;
        }
    }
    best
}
