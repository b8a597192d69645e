//! The candidates of one question while they are scored.

use super::answers::{AnswerList, Leaf, Node, ROOT};
use super::pass::{Edge, QuestionPass};
use super::{RankedAnswer, Ranking};
use std::collections::{BTreeMap, BTreeSet};

/// The most nodes of a question in a pass: attention among them grows with their square.
const NODES: usize = 256;

/// The candidates of one question.
pub(super) struct Question<'a> {
    list: &'a AnswerList,
    /// The candidates that are not scored yet, the next one last.
    waiting: Vec<Leaf>,
    /// The log-probabilities of all first tokens of the list, by node.
    first: BTreeMap<usize, f64>,
    /// The first tokens of answers that are no candidates, by node.
    first_of_rest: BTreeSet<usize>,
    /// Scored candidates, with their log-likelihoods.
    scored: Vec<(Leaf, f64)>,
}

impl QuestionPass {
    /// The pass for the first tokens of all answers.
    pub fn first_tokens(list: &AnswerList) -> Self {
        let firsts = list.nodes.iter().filter(|node| node.depth == 1);
        let edges = firsts.map(|node| Edge { place: ROOT, token: node.token }).collect();
        Self { nodes: vec![ROOT], edges, leaves: Vec::new() }
    }
}

impl<'a> Question<'a> {
    /// Chooses up to `count` candidates by the log-probabilities of the edges of
    /// [`QuestionPass::first_tokens`].
    pub fn new(list: &'a AnswerList, log_probs: &[f64], count: usize) -> Self {
        let firsts = (ROOT..).zip(&list.nodes).filter(|(_, node)| node.depth == 1);
        let first: BTreeMap<usize, f64> =
            firsts.map(|(node, _)| node).zip(log_probs.iter().copied()).collect();
        let mut order: Vec<(usize, Leaf)> =
            list.leaves.iter().map(|&leaf| (first_node(list, leaf), leaf)).collect();
        order.sort_by(|(a, x), (b, y)| first[b].total_cmp(&first[a]).then(x.answer.cmp(&y.answer)));
        let rest = order.split_off(count.min(order.len()));
        // In the order of the tree, where neighbors share tokens.
        order.sort_by_key(|(_, leaf)| std::cmp::Reverse(leaf.node));
        Self {
            list,
            waiting: order.into_iter().map(|(_, leaf)| leaf).collect(),
            first,
            first_of_rest: rest.into_iter().map(|(first, _)| first).collect(),
            scored: Vec::new(),
        }
    }

    /// The pass for the next candidates, as many as have at most [`NODES`] nodes.
    pub fn next_pass(&mut self) -> QuestionPass {
        let list = self.list;
        let mut places = BTreeMap::from([(ROOT, 0)]);
        let mut nodes = vec![ROOT];
        let mut leaves = Vec::new();
        while let Some(&leaf) = self.waiting.last() {
            let new: Vec<usize> = list.path(leaf.node).filter(|node| !places.contains_key(node)).collect();
            if !leaves.is_empty() && nodes.len() + new.len() > NODES {
                break;
            }
            for node in new.into_iter().rev() {
                places.insert(node, nodes.len());
                nodes.push(node);
            }
            leaves.push(leaf);
            self.waiting.pop();
        }
        let continued = nodes.iter().map(|&node| list.nodes[node]).filter(|node| node.depth > 1);
        let continued = continued.map(|Node { token, parent, .. }| Edge { place: places[&parent], token });
        let ends = leaves.iter().map(|leaf| Edge { place: places[&leaf.node], token: list.end });
        let mut edges: Vec<Edge> = continued.chain(ends).collect();
        edges.sort_by_key(|edge| edge.place);
        QuestionPass { nodes, edges, leaves }
    }

    /// Scores the candidates of `pass` by the log-probabilities of its edges.
    pub fn score(&mut self, pass: &QuestionPass, log_probs: &[f64]) {
        let QuestionPass { nodes, edges, leaves } = pass;
        let of_edge = |(edge, &log_prob): (&Edge, &f64)| ((nodes[edge.place], edge.token), log_prob);
        let after: BTreeMap<(usize, u32), f64> = edges.iter().zip(log_probs).map(of_edge).collect();
        for &leaf in leaves {
            let log_prob = |node: usize| match self.list.nodes[node] {
                Node { parent: ROOT, .. } => self.first[&node],
                Node { parent, token, .. } => after[&(parent, token)],
            };
            let tokens: f64 = self.list.path(leaf.node).map(log_prob).sum();
            self.scored.push((leaf, tokens + after[&(leaf.node, self.list.end)]));
        }
    }

    /// The ranking, once all candidates are scored.
    pub fn finish(mut self) -> Ranking {
        self.scored.sort_by(|(x, a), (y, b)| b.total_cmp(a).then(x.answer.cmp(&y.answer)));
        let most = self.scored.first().map_or(0.0, |&(_, log_likelihood)| log_likelihood);
        let sum: f64 = self.scored.iter().map(|(_, log_likelihood)| (log_likelihood - most).exp()).sum();
        let answers = self.scored.iter().map(|&(leaf, log_likelihood)| RankedAnswer {
            answer: leaf.answer,
            log_likelihood,
            probability: (log_likelihood - most).exp() / sum,
        });
        // What begins as an answer of the rest and is not a candidate.
        let begins_as_rest = |leaf: Leaf| self.first_of_rest.contains(&first_node(self.list, leaf));
        let of_first: f64 = self.first_of_rest.iter().map(|node| self.first[node].exp()).sum();
        let of_candidates: f64 = self
            .scored
            .iter()
            .filter(|(leaf, _)| begins_as_rest(*leaf))
            .map(|(_, log_likelihood)| log_likelihood.exp())
            .sum();
        Ranking {
            answers: answers.collect(),
            candidates_probability: most.exp() * sum,
            rest_at_most: (of_first - of_candidates).max(0.0),
        }
    }
}

/// The node of the first token of an answer.
fn first_node(list: &AnswerList, leaf: Leaf) -> usize {
    list.path(leaf.node).last().unwrap_or(leaf.node)
}
