//! The best items of a search.

use crate::ItemId;
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// An item that a search found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// The item.
    pub id: ItemId,
    /// Its cosine similarity to the query.
    pub score: f32,
}

impl Eq for Hit {}

impl Ord for Hit {
    /// The better hit is less, so that hits sort best first; of equal scores the older item is better.
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best `capacity` of the hits that are pushed.
#[derive(Clone, Debug)]
pub(crate) struct TopK {
    capacity: usize,
    /// The worst hit is at the top.
    hits: BinaryHeap<Hit>,
    /// The score of the worst hit of a full heap.
    threshold: f32,
}

impl TopK {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, hits: BinaryHeap::new(), threshold: f32::NEG_INFINITY }
    }

    /// The score that a hit must reach to matter.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    pub fn push(&mut self, hit: Hit) {
        if self.hits.len() < self.capacity {
            self.hits.push(hit);
        } else if let Some(mut worst) = self.hits.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
        if let Some(worst) = self.hits.peek().filter(|_| self.hits.len() == self.capacity) {
            self.threshold = worst.score;
        }
    }

    pub fn merge(mut self, other: Self) -> Self {
        other.hits.into_iter().for_each(|hit| self.push(hit));
        self
    }

    /// The hits, best first.
    pub fn into_sorted(self) -> Vec<Hit> {
        self.hits.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_sorting_in_any_order(
            scores in prop::collection::vec(0u8..20, 0..60), capacity in 0usize..12, split in 0usize..60,
        ) {
            let hits: Vec<Hit> = scores.iter().enumerate()
                .map(|(id, &score)| Hit { id: id as u64, score: f32::from(score) }).collect();
            let mut sorted = hits.clone();
            sorted.sort();
            sorted.truncate(capacity);
            let (first, second) = hits.split_at(split.min(hits.len()));
            let kept = |hits: &[Hit]| {
                let mut best = TopK::new(capacity);
                hits.iter().rev().for_each(|&hit| best.push(hit));
                best
            };
            prop_assert_eq!(kept(second).merge(kept(first)).into_sorted(), sorted);
        }
    }
}
