//! A list of answers as a tree of their tokens.

use crate::{Error, Result, Tokenizer};
use std::collections::BTreeMap;

/// The root of the tree: what the decoder has read before the answer.
pub(super) const ROOT: usize = 0;

/// Answers as a decoder scores them, tokenized once. Answers that begin with the same tokens share them.
#[derive(Clone, Debug)]
pub struct AnswerList {
    /// What the decoder reads before an answer.
    pub(super) start: Vec<u32>,
    /// The token after an answer.
    pub(super) end: u32,
    /// The tokens of all answers but the end token, each before those that follow it.
    pub(super) nodes: Vec<Node>,
    /// The place of each answer in the list, and the node of its last token, in the order of the tree.
    pub(super) leaves: Vec<Leaf>,
    count: usize,
}

/// A token of an answer, after the tokens of its parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub token: u32,
    pub parent: usize,
    /// 1 for the first token of an answer; 0 for the root.
    pub depth: usize,
}

/// The end of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub answer: usize,
    pub node: usize,
}

impl AnswerList {
    /// The tokens of `answers`, each of which comes after the tokens `start` and ends with `end`.
    ///
    /// Answers with the same tokens, as those that differ in case alone for a tokenizer without case, are one
    /// answer under the place of the first: their probability would count twice.
    ///
    /// # Errors
    /// There are no answers, `start` is empty, an answer has no tokens, or the tokenizer does not cover it.
    pub fn new<S: AsRef<str>>(tokenizer: &Tokenizer, answers: &[S], start: &[u32], end: u32) -> Result<Self> {
        let rows = answers.iter().map(|answer| tokenizer.encode_words(answer.as_ref()));
        Self::from_tokens(&rows.collect::<Result<Vec<_>>>()?, start, end)
    }

    /// As [`AnswerList::new`], of the tokens of each answer without begin and end token.
    ///
    /// # Errors
    /// As [`AnswerList::new`].
    pub fn from_tokens(answers: &[Vec<u32>], start: &[u32], end: u32) -> Result<Self> {
        let wrong = |problem: String| Err(Error::Generation(problem));
        if answers.is_empty() || start.is_empty() {
            return wrong(
                "answers are ranked after at least one token, and there is at least one".to_owned(),
            );
        }
        if let Some(empty) = answers.iter().position(Vec::is_empty) {
            return wrong(format!("answer {empty} of the list has no tokens: leave it out"));
        }
        // In lexicographic order an answer follows its own beginning, and a walk through the list passes the
        // tree from branch to branch.
        let mut ordered: BTreeMap<&[u32], usize> = BTreeMap::new();
        for (place, answer) in answers.iter().enumerate() {
            ordered.entry(answer).or_insert(place);
        }
        let root = Node { token: start[start.len() - 1], parent: ROOT, depth: 0 };
        let (mut nodes, mut leaves) = (vec![root], Vec::with_capacity(ordered.len()));
        let mut path: Vec<usize> = Vec::new();
        let mut last: &[u32] = &[];
        for (tokens, answer) in ordered {
            path.truncate(std::iter::zip(last, tokens).take_while(|(a, b)| a == b).count());
            for &token in &tokens[path.len()..] {
                let parent = path.last().copied().unwrap_or(ROOT);
                path.push(nodes.len());
                nodes.push(Node { token, parent, depth: path.len() });
            }
            leaves.push(Leaf { answer, node: nodes.len() - 1 });
            last = tokens;
        }
        Ok(Self { start: start.to_vec(), end, nodes, leaves, count: answers.len() })
    }

    /// The number of answers, those with the same tokens counted once each.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none; never true.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of answers with different tokens.
    pub fn distinct(&self) -> usize {
        self.leaves.len()
    }

    /// The largest number of positions that the decoder needs for an answer and what precedes it.
    pub(super) fn longest(&self) -> usize {
        // The end token is not read.
        self.start.len() + self.nodes.iter().map(|node| node.depth).max().unwrap_or(0)
    }

    /// The nodes from `node` up to the first token, without the root.
    pub(super) fn path(&self, node: usize) -> impl Iterator<Item = usize> {
        let above = |&node: &usize| Some(self.nodes[node].parent);
        std::iter::successors(Some(node), above).take_while(|&node| node != ROOT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(answers: &[&[u32]]) -> AnswerList {
        let answers: Vec<Vec<u32>> = answers.iter().map(|answer| answer.to_vec()).collect();
        AnswerList::from_tokens(&answers, &[9], 8).unwrap()
    }

    #[test]
    fn answers_share_the_tokens_that_they_begin_with() {
        let list = list(&[&[5, 2], &[1], &[5], &[5, 2, 7], &[5, 3], &[1]]);
        let node = |token, parent, depth| Node { token, parent, depth };
        let nodes =
            [node(9, 0, 0), node(1, 0, 1), node(5, 0, 1), node(2, 2, 2), node(7, 3, 3), node(3, 2, 2)];
        assert_eq!(list.nodes, nodes);
        let leaf = |answer, node| Leaf { answer, node };
        assert_eq!(list.leaves, [leaf(1, 1), leaf(2, 2), leaf(0, 3), leaf(3, 4), leaf(4, 5)]);
        assert_eq!((list.len(), list.distinct(), list.longest()), (6, 5, 4));
        assert_eq!(list.path(4).collect::<Vec<_>>(), [4, 3, 2]);
    }

    #[test]
    fn a_list_without_answers_and_an_answer_without_tokens_are_errors() {
        let error = |answers: &[Vec<u32>]| AnswerList::from_tokens(answers, &[9], 8).unwrap_err().to_string();
        assert!(error(&[]).contains("there is at least one"));
        assert!(error(&[vec![1], vec![]]).contains("answer 1 of the list has no tokens"));
    }
}
