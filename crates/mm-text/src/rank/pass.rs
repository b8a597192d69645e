//! One pass of the decoder over many tokens of the tree of answers.

use super::answers::{AnswerList, Leaf, ROOT};
use crate::decoder::TextDecoder;
use mm_core::nn::{AttentionMask, Context};
use tch::{Kind, Tensor};

/// Logits are computed for this many tokens at once: for a vocabulary of 30,000, 60 MB in f32.
const ROWS_OF_LOGITS: usize = 512;

/// What follows a token of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// The place of the token among the nodes of its question's pass.
    pub place: usize,
    /// The token that follows.
    pub token: u32,
}

/// The part of one question in a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QuestionPass {
    /// The root, and nodes of the tree, each after its parent.
    pub nodes: Vec<usize>,
    /// The log-probabilities that are wanted, in the order of the places.
    pub edges: Vec<Edge>,
    /// The candidates that they score.
    pub leaves: Vec<Leaf>,
}

/// The log-probability of each edge of each question of `context`. Every question is one row of the batch:
/// the decoder reads what precedes the answers, then the nodes, of which each sees its parents alone.
pub(super) fn log_probabilities<D: TextDecoder + ?Sized>(
    decoder: &D,
    context: &Context,
    answers: &AnswerList,
    passes: &[QuestionPass],
) -> tch::Result<Vec<Vec<f64>>> {
    let hidden = hidden(decoder, context, answers, passes);
    let (length, width) = (hidden.size()[1], hidden.size()[2]);
    let hidden = hidden.reshape([-1, width]);
    let device = hidden.device();

    // The rows that have edges, in order.
    let root = answers.start.len() - 1;
    let mut rows: Vec<i64> = Vec::new();
    let mut cells: Vec<(usize, i64)> = Vec::new(); // the row of each edge among `rows`, and its token
    for (question, pass) in passes.iter().enumerate() {
        for edge in &pass.edges {
            let row = question as i64 * length + (root + edge.place) as i64;
            if rows.last() != Some(&row) {
                rows.push(row);
            }
            cells.push((rows.len() - 1, i64::from(edge.token)));
        }
    }
    let mut found = Vec::with_capacity(cells.len());
    for (part, rows) in rows.chunks(ROWS_OF_LOGITS).enumerate() {
        let first = part * ROWS_OF_LOGITS;
        let from = cells.partition_point(|&(row, _)| row < first);
        let to = cells.partition_point(|&(row, _)| row < first + rows.len());
        let index = Tensor::from_slice(rows).to_device(device);
        let logits = decoder.logits(&hidden.index_select(0, &index)).to_kind(Kind::Float);
        let log_sum_exp: Vec<f32> = Vec::try_from(logits.logsumexp([-1i64].as_slice(), false))?;
        let vocabulary = logits.size()[1];
        let flat: Vec<i64> =
            cells[from..to].iter().map(|&(row, token)| (row - first) as i64 * vocabulary + token).collect();
        let chosen = logits.view(-1).index_select(0, &Tensor::from_slice(&flat).to_device(device));
        let chosen: Vec<f32> = Vec::try_from(chosen)?;
        let of_edge =
            |(&(row, _), logit): (&(usize, i64), f32)| f64::from(logit) - f64::from(log_sum_exp[row - first]);
        found.extend(cells[from..to].iter().zip(chosen).map(of_edge));
    }
    let mut found = found.into_iter();
    Ok(passes.iter().map(|pass| found.by_ref().take(pass.edges.len()).collect()).collect())
}

/// The outputs of the blocks `[Q, P + T, D]`: P tokens before the answers, of which the last is the root, and
/// the nodes of each question after it, padded to the same number.
fn hidden<D: TextDecoder + ?Sized>(
    decoder: &D,
    context: &Context,
    answers: &AnswerList,
    passes: &[QuestionPass],
) -> Tensor {
    let start = answers.start.len();
    let longest = passes.iter().map(|pass| pass.nodes.len()).max().unwrap_or(0);
    // The root, which every pass begins with, is the last token of the start.
    let length = start + longest.saturating_sub(1);
    let mut ids = vec![0i64; passes.len() * length];
    let mut positions = vec![0i64; passes.len() * length];
    let mut bias = vec![f32::NEG_INFINITY; passes.len() * length * length];
    for (question, pass) in passes.iter().enumerate() {
        let row = question * length;
        let mut open = |query: usize, key: usize| bias[(row + query) * length + key] = 0.0;
        for query in 0..length {
            // Of padding nothing is read, but each row of a softmax needs a finite score.
            (0..start.min(query + 1)).for_each(|key| open(query, key));
        }
        let mut places = vec![ROOT; pass.nodes.iter().max().map_or(0, |&node| node + 1)];
        for (place, &node) in pass.nodes.iter().enumerate().skip(1) {
            places[node] = place;
            answers.path(node).for_each(|above| open(start - 1 + place, start - 1 + places[above]));
        }
        for (at, &token) in answers.start.iter().enumerate() {
            (ids[row + at], positions[row + at]) = (i64::from(token), at as i64);
        }
        for (place, &node) in pass.nodes.iter().enumerate().skip(1) {
            let (node, at) = (answers.nodes[node], row + start - 1 + place);
            (ids[at], positions[at]) = (i64::from(node.token), (start - 1 + node.depth) as i64);
        }
    }
    let device = context.states.device();
    let shape = [passes.len() as i64, length as i64];
    let tensor = |values: &[i64]| Tensor::from_slice(values).view(shape).to_device(device);
    let bias = Tensor::from_slice(&bias).view([shape[0], 1, shape[1], shape[1]]).to_device(device);
    let x = decoder.embed(&decoder.embed_tokens(&tensor(&ids)), &tensor(&positions));
    decoder.blocks().forward_with_context(x, &AttentionMask::none().with_bias(bias), context)
}
