//! Sets of items.

use std::collections::BTreeMap;

/// The id of an item: its segment in the upper 32 bits, its row there in the lower ones.
pub type ItemId = u64;

/// The id of row `row` of segment `segment`.
pub(crate) fn item_id(segment: u32, row: usize) -> ItemId {
    u64::from(segment) << 32 | row as u64
}

/// The segment and the row of an item.
pub(crate) fn place_of(id: ItemId) -> (u32, usize) {
    ((id >> 32) as u32, (id & u64::from(u32::MAX)) as usize)
}

/// A set of items: a bit for each row of a segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdSet {
    segments: BTreeMap<u32, Vec<u64>>,
    len: usize,
}

impl IdSet {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `id` is in the set.
    pub fn contains(&self, id: ItemId) -> bool {
        let (segment, row) = place_of(id);
        let words = self.segments.get(&segment);
        words.and_then(|words| words.get(row / 64)).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Adds `id`.
    pub fn insert(&mut self, id: ItemId) {
        let (segment, row) = place_of(id);
        let words = self.segments.entry(segment).or_default();
        if words.len() <= row / 64 {
            words.resize(row / 64 + 1, 0);
        }
        let (word, bit) = (&mut words[row / 64], 1 << (row % 64));
        self.len += usize::from(*word & bit == 0);
        *word |= bit;
    }

    /// The items in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ItemId> {
        self.segments.iter().flat_map(|(&segment, words)| {
            let bits = |(at, &word): (usize, &u64)| {
                (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 64 * at + bit)
            };
            words.iter().enumerate().flat_map(bits).map(move |row| item_id(segment, row))
        })
    }
}

impl FromIterator<ItemId> for IdSet {
    fn from_iter<T: IntoIterator<Item = ItemId>>(ids: T) -> Self {
        let mut set = Self::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_holds_what_was_inserted(places in prop::collection::vec((0u32..3, 0usize..200), 0..50)) {
            let ids: BTreeSet<ItemId> = places.iter().map(|&(segment, row)| item_id(segment, row)).collect();
            let set: IdSet = places.iter().map(|&(segment, row)| item_id(segment, row)).collect();
            prop_assert_eq!(set.len(), ids.len());
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), ids.iter().copied().collect::<Vec<_>>());
            for segment in 0..4 {
                for row in 0..260 {
                    let id = item_id(segment, row);
                    prop_assert_eq!(place_of(id), (segment, row));
                    prop_assert_eq!(set.contains(id), ids.contains(&id));
                }
            }
        }
    }
}
