//! Generation of one text, token by token.

use super::greedy::Independent;
use super::search::{self, Logits, Search, Settings};
use super::{GenerationConfig, Hypothesis, Prompt, check, start};
use crate::decoder::Decoder;
use crate::{Error, Result};
use mm_core::nn::Context;
use std::ops::ControlFlow;
use tch::Tensor;

/// Generates the text of one `prompt`, greedily or as one sample, and calls `on_token` with each new token,
/// the end token included. [`ControlFlow::Break`] ends the text after that token.
///
/// The text is that of [`generate`](super::generate). `context` has one row, for a decoder with
/// cross-attention.
///
/// # Errors
/// As [`generate`](super::generate), or `config` has several beams or texts: their tokens are known at the
/// end only.
pub fn generate_stream<D: Decoder + ?Sized>(
    decoder: &D,
    context: Option<&Context>,
    prompt: &Prompt,
    config: &GenerationConfig,
    eos: &[u32],
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Hypothesis> {
    let prompts = std::slice::from_ref(prompt);
    check(decoder, context, prompts, config)?;
    let (beams, texts) = (config.num_beams, config.num_return_sequences);
    if beams > 1 || texts > 1 {
        return Err(Error::Generation(format!(
            "num_beams is {beams} and num_return_sequences {texts}: both must be 1 for a text that is given \
             token by token"
        )));
    }
    mm_sys::inference_mode(|| {
        let (mut logits, mut cache) = start(decoder, context, prompts, config);
        let mut text = Box::new(Independent::new(Settings::new(prompt, config, eos)));
        loop {
            let (numbers, log_sum_exp) = search::numbers(&logits)?;
            let next = text.advance(&Logits { logits: &numbers, log_sum_exp: &log_sum_exp });
            if text.last_token().is_some_and(|token| on_token(token).is_break()) {
                break;
            }
            let Some(next) = next else { break };
            let tokens: Vec<i64> = next.tokens.iter().map(|&token| i64::from(token)).collect();
            logits = decoder.step(&Tensor::from_slice(&tokens).unsqueeze(-1), &mut cache);
        }
        Ok(text.finish().pop().unwrap_or_default())
    })
}
