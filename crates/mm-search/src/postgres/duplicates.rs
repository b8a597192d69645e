//! Groups of near duplicates: the server finds the neighbours of many items at once.

use super::search::id_of;
use super::{PostgresIndex, SqlResult};
use crate::backend::{ProgressFn, SearchIndex};
use crate::{Error, ItemId, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Items whose neighbours are found at once.
const ITEMS: i64 = 256;

/// As many neighbours of an item are looked at as in a folder.
const NEIGHBOURS: usize = 32;

/// As [`Index::near_duplicates`](crate::Index::near_duplicates).
///
/// # Errors
/// `threshold` is not between 0 and 1, or as [`PostgresIndex::search`](SearchIndex::search).
pub(super) fn near_duplicates(
    index: &PostgresIndex,
    threshold: f32,
    candidates: Option<usize>,
    progress: ProgressFn,
) -> Result<Vec<Vec<ItemId>>> {
    if !(0.0..=1.0).contains(&threshold) {
        return Err(Error::Query(format!("the threshold {threshold} is not between 0 and 1")));
    }
    let items = &index.place.tables.items;
    let page = format!("SELECT id FROM {items} WHERE id > $1 ORDER BY id LIMIT {ITEMS}");
    let pairs = format!(
        "SELECT item.id, other.id FROM {items} AS item CROSS JOIN LATERAL (
             SELECT id, embedding <#> item.embedding AS distance FROM {items}
             ORDER BY embedding <#> item.embedding LIMIT {NEIGHBOURS}
         ) AS other
         WHERE item.id = ANY($1) AND other.id <> item.id AND -other.distance >= $2"
    );
    let total = index.len()?;
    let mut neighbours: BTreeMap<ItemId, Vec<ItemId>> = BTreeMap::new();
    let (mut last, mut done) = (i64::MIN, 0);
    loop {
        let ids = index.read("", |transaction| {
            let ids = transaction.query(&page, &[&last])?;
            ids.iter().map(|row| row.try_get(0)).collect::<SqlResult<Vec<i64>>>()
        })?;
        let Some(&end) = ids.last() else { return Ok(groups(neighbours)) };
        let settings = index.settings(candidates, NEIGHBOURS, false)?;
        index.read(&settings, |transaction| {
            for row in transaction.query(&pairs, &[&ids, &f64::from(threshold)])? {
                let (item, other) = (id_of(&row)?, row.try_get::<_, i64>(1)? as ItemId);
                neighbours.entry(item).or_default().push(other);
                neighbours.entry(other).or_default().push(item);
            }
            Ok(())
        })?;
        (last, done) = (end, done + ids.len());
        progress(done.min(total), total);
    }
}

/// The connected components of a graph: the largest first, of equal ones that of the oldest item.
fn groups(neighbours: BTreeMap<ItemId, Vec<ItemId>>) -> Vec<Vec<ItemId>> {
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
