//! Ranking of a list of answers by the likelihood that a decoder gives them.
//!
//! The way of BLIP's authors (Li et al. 2022, section 4.4; LAVIS's `rank` inference): the answers with the
//! most probable first tokens are the candidates, and the sum of the log-probabilities of a candidate's
//! tokens, end token included, is its score. Scores are those of each candidate alone. The work is less:
//! candidates are a tree of tokens, which the decoder reads in one pass a question, so that a token that
//! several of them begin with is computed once; and what the decoder reads beside them, the question's keys
//! and values, is never repeated for a candidate.

mod answers;
mod pass;
mod question;

pub use answers::AnswerList;

use crate::decoder::TextDecoder;
use crate::{Error, Result};
use mm_core::nn::Context;
use pass::{QuestionPass, log_probabilities};
use question::Question;
use serde::Serialize;

/// The candidates of one question.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// The candidates, the most likely first; of equals the first in the list.
    pub answers: Vec<RankedAnswer>,
    /// The probability that the decoder answers with one of the candidates, among all texts.
    pub candidates_probability: f64,
    /// An upper bound of the probability that the decoder answers with an answer of the list that is no
    /// candidate: that of their first tokens. 0 where all answers are candidates.
    pub rest_at_most: f64,
}

/// A candidate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RankedAnswer {
    /// Its place in the list.
    pub answer: usize,
    /// The sum of the log-probabilities of its tokens and of the end token.
    pub log_likelihood: f64,
    /// Its probability, given that the answer is one of the candidates. Where all answers of the list are
    /// candidates it is the probability within the list. Else the latter is between this times `p / (p + r)`
    /// and this, with [`Ranking::candidates_probability`] p and [`Ranking::rest_at_most`] r.
    pub probability: f64,
}

/// Ranks, for each context, the `num_candidates` of `answers` whose first tokens are the most probable (of
/// equals the first in the list), or all of them where there are no more.
///
/// # Errors
/// `num_candidates` is 0, an answer is longer than the decoder's table of positions, or a token has no
/// embedding.
pub fn rank<D: TextDecoder + ?Sized>(
    decoder: &D,
    context: &Context,
    answers: &AnswerList,
    num_candidates: usize,
) -> Result<Vec<Ranking>> {
    check(decoder, answers, num_candidates)?;
    let questions = context.states.size()[0] as usize;
    if questions == 0 {
        return Ok(Vec::new());
    }
    mm_sys::inference_mode(|| {
        let first = vec![QuestionPass::first_tokens(answers); questions];
        let found = log_probabilities(decoder, context, answers, &first)?;
        let mut scored: Vec<Question> =
            found.iter().map(|log_probs| Question::new(answers, log_probs, num_candidates)).collect();
        loop {
            let passes: Vec<QuestionPass> = scored.iter_mut().map(Question::next_pass).collect();
            if passes.iter().all(|pass| pass.leaves.is_empty()) {
                break;
            }
            let found = log_probabilities(decoder, context, answers, &passes)?;
            for ((question, pass), log_probs) in scored.iter_mut().zip(&passes).zip(&found) {
                question.score(pass, log_probs);
            }
        }
        Ok(scored.into_iter().map(Question::finish).collect())
    })
}

fn check<D: TextDecoder + ?Sized>(decoder: &D, answers: &AnswerList, num_candidates: usize) -> Result<()> {
    let wrong = |problem: String| Err(Error::Generation(problem));
    if num_candidates == 0 {
        return wrong("num_candidates is 0: it must be at least 1".to_owned());
    }
    let sizes = decoder.sizes();
    let tokens = answers.nodes.iter().map(|node| node.token).chain(answers.start.iter().copied());
    if let Some(token) = tokens.chain([answers.end]).find(|&token| i64::from(token) >= sizes.vocab_size) {
        return wrong(format!("an answer has token {token}, the decoder {} embeddings", sizes.vocab_size));
    }
    if answers.longest() as i64 > sizes.max_length {
        return wrong(format!(
            "an answer needs {} positions, the decoder has {}: leave it out of the list",
            answers.longest(),
            sizes.max_length
        ));
    }
    Ok(())
}
