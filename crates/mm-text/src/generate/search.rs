//! What the ways to search for texts have in common.

use super::{GenerationConfig, Hypothesis, Prompt};
use crate::Result;
use tch::{Kind, Tensor};

/// The settings of the search for one prompt.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a> {
    pub config: &'a GenerationConfig,
    pub eos: &'a [u32],
    pub prompt: &'a [u32],
    /// Of this prompt.
    pub seed: u64,
}

impl<'a> Settings<'a> {
    /// The settings of the search that begins with `prompt`.
    pub fn new(prompt: &'a Prompt, config: &'a GenerationConfig, eos: &'a [u32]) -> Self {
        let seed = mm_core::seed::derive(config.seed, "prompt", prompt.seed);
        Self { config, eos, prompt: &prompt.tokens, seed }
    }
}

/// The numbers of `logits` `[rows, vocab]`, row after row, and the logarithm of the sum of each row's
/// exponentials.
pub(super) fn numbers(logits: &Tensor) -> Result<(Vec<f32>, Vec<f32>)> {
    let log_sum_exp = Vec::try_from(logits.logsumexp([-1i64].as_slice(), false))?;
    Ok((Vec::try_from(logits.to_kind(Kind::Float).contiguous().view(-1))?, log_sum_exp))
}

/// The logits of the next token for the rows of one prompt.
pub(super) struct Logits<'a> {
    /// Row after row.
    pub logits: &'a [f32],
    /// The logarithm of the sum of each row's exponentials.
    pub log_sum_exp: &'a [f32],
}

/// The logits of one row.
#[derive(Clone, Copy)]
pub(super) struct LogitsRow<'a> {
    pub logits: &'a [f32],
    pub log_sum_exp: f32,
}

impl<'a> Logits<'a> {
    pub fn row(&self, index: usize) -> LogitsRow<'a> {
        let width = self.logits.len() / self.log_sum_exp.len();
        LogitsRow {
            logits: &self.logits[index * width..(index + 1) * width],
            log_sum_exp: self.log_sum_exp[index],
        }
    }
}

/// How the rows of one prompt go on.
pub(super) struct Continuation {
    /// The next token of each row.
    pub tokens: Vec<u32>,
    /// The row that each row goes on from.
    pub parents: Vec<usize>,
}

/// The search for the texts of one prompt.
pub(super) trait Search: Send {
    /// Goes on by one token. The first call gets the logits of one row, the others those of the rows of the
    /// last continuation. None where the search is done.
    fn advance(&mut self, logits: &Logits) -> Option<Continuation>;

    /// The texts, the best first.
    fn finish(self: Box<Self>) -> Vec<Hypothesis>;
}
