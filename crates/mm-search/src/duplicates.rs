//! Groups of near duplicates.

use crate::{Error, Index, ItemId, Result, SearchOptions};
use std::collections::BTreeMap;

/// Rows that are compared with the index at once.
const QUERIES: usize = 256;

/// Neighbours of an item that are looked at: an item with more near duplicates meets the others through them.
const NEIGHBOURS: usize = 32;

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
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Error::Query(format!("the threshold {threshold} is not between 0 and 1")));
        }
        let ids = self.ids();
        let mut groups = Groups::new(ids.len());
        let options = SearchOptions { k: NEIGHBOURS, among: None, candidates };
        for (at, part) in ids.chunks(QUERIES).enumerate() {
            let rows: Vec<Vec<f32>> = part.iter().filter_map(|&id| self.row(id)).collect();
            for (place, hits) in self.search(&rows, &options)?.into_iter().enumerate() {
                for hit in hits.into_iter().take_while(|hit| hit.score >= threshold) {
                    if let Ok(other) = ids.binary_search(&hit.id) {
                        groups.join(at * QUERIES + place, other);
                    }
                }
            }
            progress(at * QUERIES + part.len(), ids.len());
        }
        let mut members: BTreeMap<usize, Vec<ItemId>> = BTreeMap::new();
        for (place, &id) in ids.iter().enumerate() {
            members.entry(groups.root(place)).or_default().push(id);
        }
        let mut several: Vec<Vec<ItemId>> = members.into_values().filter(|group| group.len() > 1).collect();
        several.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        Ok(several)
    }
}

/// Disjoint sets (union-find), each with its lowest member as the root.
struct Groups(Vec<usize>);

impl Groups {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn root(&mut self, mut of: usize) -> usize {
        while self.0[of] != of {
            self.0[of] = self.0[self.0[of]];
            of = self.0[of];
        }
        of
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}
