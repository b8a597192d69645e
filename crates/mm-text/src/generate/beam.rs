//! Beam search, and beams that are drawn.
//!
//! Equal to transformers' search for a single prompt, step by step: what runs, what is finished, and when it
//! ends. There a batch is searched until its last prompt is done, without effect on the others.

use super::Hypothesis;
use super::config::EarlyStopping;
use super::draw::{draw_without_replacement, shape_distribution};
use super::rules::{History, Rules};
use super::search::{Continuation, Logits, Search, Settings};

/// The score of a beam that does not exist: before the first step there is one.
const NO_BEAM: f32 = -1e9;

/// The beams of one prompt.
pub(super) struct Beams<'a> {
    settings: Settings<'a>,
    running: Vec<Beam>,
    /// The best texts that ended, the best first; at most `num_beams`.
    finished: Vec<Hypothesis>,
    /// Candidates that are drawn from all continuations in a step: enough that `num_beams` of them go on.
    kept: usize,
    step: usize,
}

/// A text that is searched on from.
#[derive(Clone)]
struct Beam {
    text: Hypothesis,
    /// The sum of the scores of its tokens, rules included.
    score: f32,
}

/// A continuation of a beam by one token.
#[derive(Clone, Copy)]
struct Candidate {
    parent: usize,
    token: u32,
    score: f32,
    log_prob: f32,
}

impl<'a> Beams<'a> {
    /// No token yet.
    pub fn new(settings: Settings<'a>) -> Self {
        let beams = settings.config.num_beams;
        Self {
            running: vec![Beam { text: Hypothesis::default(), score: 0.0 }],
            finished: Vec::with_capacity(2 * beams),
            kept: (1 + settings.eos.len()).max(2) * beams,
            step: 0,
            settings,
        }
    }

    /// The best continuations of all beams, in the order in which they are considered.
    fn candidates(&self, logits: &Logits) -> Vec<Candidate> {
        let Settings { config, eos, prompt, seed } = self.settings;
        let rules = Rules::new(config, eos);
        let mut all: Vec<Candidate> = Vec::new();
        for (parent, beam) in self.running.iter().enumerate() {
            let row = logits.row(parent);
            let mut scores: Vec<f32> = row.logits.iter().map(|logit| logit - row.log_sum_exp).collect();
            rules.apply(&mut scores, History { prompt, generated: &beam.text.tokens });
            if config.do_sample {
                shape_distribution(&mut scores, config, 1 + eos.len());
            }
            let candidate = |token: usize| Candidate {
                parent,
                token: token as u32,
                score: scores[token] + beam.score,
                log_prob: row.logits[token] - row.log_sum_exp,
            };
            if config.do_sample {
                let possible = (0..scores.len()).filter(|&token| scores[token].is_finite());
                all.extend(possible.map(candidate));
            } else {
                all.extend(largest(&scores, self.kept).into_iter().map(candidate));
            }
        }
        if config.do_sample {
            let width = logits.row(0).logits.len();
            let places: Vec<(usize, f32)> =
                all.iter().map(|at| (at.parent * width + at.token as usize, at.score)).collect();
            let drawn = draw_without_replacement(&places, self.kept, seed, self.step as u64);
            let of_place =
                |place: usize| all[all.partition_point(|at| at.parent * width + (at.token as usize) < place)];
            return drawn.into_iter().map(of_place).collect();
        }
        // Ties go to the first beam and the smallest token.
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all.truncate(self.kept);
        all
    }

    /// Takes the candidates that end, among the first `num_beams`, into the finished texts.
    fn collect_finished(&mut self, candidates: &[Candidate]) {
        let Settings { config, eos, .. } = self.settings;
        let length = self.step + 1;
        if config.early_stopping == EarlyStopping::Always && self.finished.len() == config.num_beams {
            return;
        }
        let penalty = (length as f64).powf(config.length_penalty) as f32;
        for candidate in candidates.iter().take(config.num_beams) {
            let ends = eos.contains(&candidate.token);
            if !(ends || length == config.max_new_tokens) || candidate.score <= NO_BEAM {
                continue;
            }
            let mut text = self.running[candidate.parent].text.extended(candidate.token, candidate.log_prob);
            text.score = candidate.score / penalty;
            text.finished = ends;
            self.finished.push(text);
        }
        // Stable: of equal scores the earlier text stays first.
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(config.num_beams);
    }

    /// Whether no running beam can be among the finished texts any more, or there is none.
    fn is_done(&self) -> bool {
        let Settings { config, .. } = self.settings;
        if self.step == config.max_new_tokens {
            return true;
        }
        let Some(worst) = self.finished.get(config.num_beams - 1) else { return false };
        if config.early_stopping == EarlyStopping::Always {
            return true;
        }
        let longest = config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0;
        let length = if longest { config.max_new_tokens } else { self.step };
        let best = self.running.first().map_or(NO_BEAM, |beam| beam.score);
        best / (length as f64).powf(config.length_penalty) as f32 <= worst.score
    }
}

impl Search for Beams<'_> {
    fn advance(&mut self, logits: &Logits) -> Option<Continuation> {
        let Settings { config, eos, .. } = self.settings;
        let candidates = self.candidates(logits);
        let goes_on = candidates.iter().filter(|candidate| !eos.contains(&candidate.token));
        let mut next: Vec<Candidate> = goes_on.copied().collect();
        next.sort_by(|a, b| b.score.total_cmp(&a.score));
        next.truncate(config.num_beams);
        self.collect_finished(&candidates);
        let mut parents: Vec<usize> = next.iter().map(|candidate| candidate.parent).collect();
        self.running = next
            .iter()
            .map(|candidate| Beam {
                text: self.running[candidate.parent].text.extended(candidate.token, candidate.log_prob),
                score: candidate.score,
            })
            .collect();
        self.step += 1;
        if self.running.is_empty() || self.is_done() {
            return None;
        }
        // All prompts have as many rows: beams that do not exist repeat the first one, without a chance.
        while self.running.len() < config.num_beams {
            self.running.push(Beam { text: self.running[0].text.clone(), score: NO_BEAM });
            parents.push(parents[0]);
        }
        let last = |beam: &Beam| beam.text.tokens.last().copied().unwrap_or(0);
        Some(Continuation { tokens: self.running.iter().map(last).collect(), parents })
    }

    fn finish(self: Box<Self>) -> Vec<Hypothesis> {
        let mut finished = self.finished;
        finished.truncate(self.settings.config.num_return_sequences);
        finished
    }
}

/// The tokens of the `count` largest scores, the largest first; of equal scores the smaller token.
fn largest(scores: &[f32], count: usize) -> Vec<usize> {
    let count = count.min(scores.len());
    let mut best: Vec<usize> = Vec::with_capacity(count + 1);
    for (token, &score) in scores.iter().enumerate() {
        if best.len() == count && score <= scores[best[count - 1]] {
            continue;
        }
        if score == f32::NEG_INFINITY {
            continue;
        }
        let place = best.partition_point(|&other| scores[other] >= score);
        best.insert(place, token);
        best.truncate(count);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_scores_are_found_in_order_and_ties_go_to_the_smaller_token() {
        let scores = [1.0, 5.0, f32::NEG_INFINITY, 5.0, 3.0, -2.0];
        assert_eq!(largest(&scores, 3), [1, 3, 4]);
        assert_eq!(largest(&scores, 9), [1, 3, 4, 0, 5]);
        assert!(largest(&[f32::NEG_INFINITY], 2).is_empty());
    }
}
