//! Generation of texts from a [`Decoder`]: greedy, beam search, sampling, drawn beams.
//!
//! [`generate`] gives what transformers' `generate` gives for each prompt alone, token for token, whatever
//! else is in the batch: prompts of other lengths are padded on the left and the padding is hidden, each
//! prompt has a seed of its own, and one that is done leaves the batch. Where transformers differs between
//! versions, 5.23 counts; of padded prompts it gives other texts than of single ones.
//!
//! ```
//! use mm_text::decoder::{Gpt2, Gpt2Config};
//! use mm_text::generate::{GenerationConfig, Prompt, generate};
//! use tch::{Device, nn};
//!
//! let config = Gpt2Config { vocab_size: 50, n_embd: 16, n_head: 2, n_layer: 2, ..Gpt2Config::default() };
//! let vs = nn::VarStore::new(Device::Cpu);
//! let decoder = Gpt2::new(&vs.root(), &config, None)?;
//!
//! let prompts = [Prompt { tokens: vec![49, 3], seed: 0 }, Prompt { tokens: vec![49], seed: 1 }];
//! let beams = GenerationConfig { num_beams: 3, max_new_tokens: 5, ..GenerationConfig::default() };
//! let texts = generate(&decoder, None, &prompts, &beams, &[49])?;
//! assert_eq!(texts.len(), 2);
//! assert!(texts[0][0].tokens.len() <= 5);
//! # Ok::<(), mm_text::Error>(())
//! ```
//!
//! [`generate_stream`] gives the tokens of one text as they are found.
//!
//! A new way to search is a file with a type that implements `Search`: it sees the logits of the rows of one
//! prompt and says how they go on.

mod beam;
mod config;
mod draw;
mod greedy;
mod pieces;
mod rules;
mod search;
mod stream;

pub use config::{EarlyStopping, GenerationConfig};
pub use draw::shape_distribution;
pub use pieces::TextPieces;
pub use rules::{History, Rules};
pub use stream::generate_stream;

use crate::decoder::{Decoder, DecoderCache};
use crate::{Error, Result};
use beam::Beams;
use greedy::Independent;
use mm_core::nn::Context;
use rayon::prelude::*;
use search::{Continuation, Logits, Search, Settings};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// What a text begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens, the begin token included.
    pub tokens: Vec<u32>,
    /// The seed of its draws; with [`GenerationConfig::seed`] it fixes the text.
    pub seed: u64,
}

/// A generated text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    /// The tokens after the prompt, the end token included.
    pub tokens: Vec<u32>,
    /// The logarithm of each token's probability, before rules and temperature.
    pub log_probs: Vec<f32>,
    /// The sum of the log-probabilities (with beams after rules, as transformers' `sequences_scores`) over
    /// the length to the power of `length_penalty`.
    pub score: f32,
    /// Whether it has an end token; otherwise it was cut at `max_new_tokens`.
    pub finished: bool,
}

impl Hypothesis {
    /// The same text with one more token.
    fn extended(&self, token: u32, log_prob: f32) -> Self {
        let mut tokens = Vec::with_capacity(self.tokens.len() + 1);
        tokens.extend_from_slice(&self.tokens);
        tokens.push(token);
        let mut log_probs = Vec::with_capacity(self.log_probs.len() + 1);
        log_probs.extend_from_slice(&self.log_probs);
        log_probs.push(log_prob);
        Self { tokens, log_probs, score: 0.0, finished: false }
    }
}

/// Generates up to `config.num_return_sequences` texts for each of `prompts`, the best first, that end with
/// one of the tokens `eos`. `context` has a row for each prompt, for a decoder with cross-attention.
///
/// # Errors
/// `config` is not valid, a prompt is empty, or a prompt and `max_new_tokens` together are longer than the
/// decoder's table of positions.
pub fn generate<D: Decoder + ?Sized>(
    decoder: &D,
    context: Option<&Context>,
    prompts: &[Prompt],
    config: &GenerationConfig,
    eos: &[u32],
) -> Result<Vec<Vec<Hypothesis>>> {
    check(decoder, context, prompts, config)?;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    mm_sys::inference_mode(|| {
        let (logits, mut cache) = start(decoder, context, prompts, config);
        let mut batch = Batch::new(prompts, config, eos);
        let mut logits = Some(logits);
        while let Some(current) = logits.take() {
            if let Some(tokens) = batch.advance(&current, &mut cache)? {
                logits = Some(decoder.step(&tokens, &mut cache));
            }
        }
        Ok(batch.finish())
    })
}

/// The logits `[prompts, vocab]` of the first new tokens, and the cache after the prompts.
fn start<D: Decoder + ?Sized>(
    decoder: &D,
    context: Option<&Context>,
    prompts: &[Prompt],
    config: &GenerationConfig,
) -> (Tensor, DecoderCache) {
    let starts: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
    let longest = starts.iter().map(|start| start.len()).max().unwrap_or(0);
    // The last token is not appended.
    let capacity = (longest + config.max_new_tokens - 1) as i64;
    let mut cache = decoder.new_cache(capacity, context);
    (decoder.start(&starts, &mut cache), cache)
}

/// The searches of a batch.
struct Batch<'a> {
    searches: Vec<Box<dyn Search + 'a>>,
    /// The prompts that are still searched, in the order of their rows.
    active: Vec<usize>,
    /// Rows of each active prompt.
    rows: usize,
}

impl<'a> Batch<'a> {
    fn new(prompts: &'a [Prompt], config: &'a GenerationConfig, eos: &'a [u32]) -> Self {
        let search = |prompt: &'a Prompt| -> Box<dyn Search + 'a> {
            let settings = Settings::new(prompt, config, eos);
            if config.num_beams > 1 {
                Box::new(Beams::new(settings))
            } else {
                Box::new(Independent::new(settings))
            }
        };
        let searches: Vec<_> = prompts.iter().map(search).collect();
        Self { active: (0..searches.len()).collect(), searches, rows: 1 }
    }

    /// Continues all searches by one token, from `logits` `[active * rows, vocab]`, and drops the prompts
    /// that are done. Gives the next tokens `[active * rows', 1]`; none where all are done.
    fn advance(&mut self, logits: &Tensor, cache: &mut DecoderCache) -> Result<Option<Tensor>> {
        let (vocab, rows) = (logits.size()[1] as usize, self.rows);
        let (logits, log_sum_exp) = search::numbers(logits)?;
        let mut continuations: Vec<Option<Continuation>> = self
            .active_searches()
            .into_par_iter()
            .zip(logits.par_chunks(rows * vocab).zip(log_sum_exp.par_chunks(rows)))
            .map(|(search, (logits, log_sum_exp))| search.advance(&Logits { logits, log_sum_exp }))
            .collect();

        // The last prompt takes the place of one that is done: one context moves, not all behind it.
        let mut order: Vec<usize> = (0..self.active.len()).collect();
        let mut slot = 0;
        while slot < order.len() {
            if continuations[order[slot]].is_some() {
                slot += 1
            } else {
                let _ = order.swap_remove(slot);
            }
        }
        if order.is_empty() {
            return Ok(None);
        }
        if order.len() < self.active.len() {
            let slots: Vec<i64> = order.iter().map(|&slot| slot as i64).collect();
            cache.key_values.keep_contexts(&slots);
            self.active = order.iter().map(|&slot| self.active[slot]).collect();
        }
        let (mut tokens, mut parents) = (Vec::new(), Vec::new());
        for &slot in &order {
            let Some(next) = continuations[slot].take() else { continue };
            parents.extend(next.parents.iter().map(|&parent| (slot * rows + parent) as i64));
            tokens.extend(next.tokens.iter().map(|&token| i64::from(token)));
        }
        let is_unchanged =
            log_sum_exp.len() == parents.len() && (0..).zip(&parents).all(|(row, &of)| row == of);
        if !is_unchanged {
            cache.select_rows(&parents);
        }
        self.rows = tokens.len() / order.len();
        Ok(Some(Tensor::from_slice(&tokens).unsqueeze(-1)))
    }

    /// The searches of the active prompts, in the order of their rows.
    fn active_searches(&mut self) -> Vec<&mut Box<dyn Search + 'a>> {
        let mut all: Vec<Option<&mut Box<dyn Search + 'a>>> = self.searches.iter_mut().map(Some).collect();
        self.active.iter().filter_map(|&index| all[index].take()).collect()
    }

    fn finish(self) -> Vec<Vec<Hypothesis>> {
        self.searches.into_iter().map(Search::finish).collect()
    }
}

fn check<D: Decoder + ?Sized>(
    decoder: &D,
    context: Option<&Context>,
    prompts: &[Prompt],
    config: &GenerationConfig,
) -> Result<()> {
    config.validate()?;
    let wrong = |problem: String| Err(Error::Generation(problem));
    if let Some(rows) = context.map(|context| context.states.size()[0])
        && rows != prompts.len() as i64
    {
        return wrong(format!("{} prompts for {rows} images", prompts.len()));
    }
    let limit = decoder.max_length();
    for prompt in prompts {
        let (length, new) = (prompt.tokens.len(), config.max_new_tokens);
        if length == 0 && !decoder.has_prefix() {
            return wrong("a prompt is empty: it needs at least the begin token".to_owned());
        }
        // The last new token needs no position.
        if (length + new) as i64 > limit + 1 {
            return wrong(format!(
                "a prompt of {length} tokens and max_new_tokens of {new} exceed the {limit} positions of the \
                 decoder: shorten the prompt or set max_new_tokens to at most {}",
                (limit + 1 - length as i64).max(0)
            ));
        }
        if let Some(token) = prompt.tokens.iter().find(|&&token| i64::from(token) >= decoder.vocab_size()) {
            let rows = decoder.vocab_size();
            return wrong(format!("the prompt has token {token}, the decoder {rows} embeddings"));
        }
    }
    Ok(())
}
