//! Groups of near duplicates.

use crate::{Error, Index, ItemId, Result, SearchOptions};
use std::collections::{BTreeMap, BTreeSet};

/// Rows that are compared with the index at once.
pub(crate) const QUERIES: usize = 256;

/// Neighbours of an item that are looked at: an item with more near duplicates meets the others through them.
pub(crate) const NEIGHBOURS: usize = 32;

/// Checks a similarity that a user gave.
///
/// # Errors
/// It is not between 0 and 1.
pub(crate) fn check_threshold(threshold: f32) -> Result<()> {
    match (0.0..=1.0).contains(&threshold) {
        true => Ok(()),
        false => Err(Error::Query(format!("the threshold {threshold} is not between 0 and 1"))),
    }
}

impl Index {
    /// Groups of two or more items of which each is at least as similar as `threshold` to another one of its
    /// group: the largest group first, the oldest item first. `candidates` is as in [`SearchOptions`];
    /// `progress` gets the number of items done and their total.
    ///
    /// # Errors
    /// `threshold` is not between 0 and 1, or as [`Index::search`].
    pub fn near_duplicates(
        &self,
        threshold: f32,
        candidates: Option<usize>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<Vec<ItemId>>> {
        check_threshold(threshold)?;
        let ids = self.ids();
        let mut pairs = NearPairs::default();
        let options = SearchOptions { k: NEIGHBOURS, among: None, candidates };
        for (at, part) in ids.chunks(QUERIES).enumerate() {
            let rows: Vec<Vec<f32>> = part.iter().filter_map(|&id| self.row(id)).collect();
            for (&id, hits) in part.iter().zip(self.search(&rows, &options)?) {
                for hit in hits.into_iter().take_while(|hit| hit.score >= threshold) {
                    pairs.insert(id, hit.id);
                }
            }
            progress(at * QUERIES + part.len(), ids.len());
        }
        Ok(pairs.into_groups())
    }
}

/// Pairs of similar items: the edges of an undirected graph.
#[derive(Default)]
pub(crate) struct NearPairs(BTreeMap<ItemId, Vec<ItemId>>);

impl NearPairs {
    /// Adds a pair; an item and itself are none.
    pub fn insert(&mut self, a: ItemId, b: ItemId) {
        if a != b {
            self.0.entry(a).or_default().push(b);
            self.0.entry(b).or_default().push(a);
        }
    }

    /// The connected components: the largest first, of equal ones that of the oldest item.
    pub fn into_groups(self) -> Vec<Vec<ItemId>> {
        let Self(neighbours) = self;
        let (mut seen, mut groups) = (BTreeSet::new(), Vec::new());
        for &first in neighbours.keys() {
            let (mut group, mut waiting) = (Vec::new(), vec![first]);
            while let Some(item) = waiting.pop() {
                if seen.insert(item) {
                    group.push(item);
                    waiting.extend(neighbours.get(&item).into_iter().flatten());
                }
            }
            group.sort_unstable();
            groups.extend((!group.is_empty()).then_some(group));
        }
        groups.sort_by(|a: &Vec<ItemId>, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        groups
    }
}
