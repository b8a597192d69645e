//! Groups of near duplicates: the server finds the neighbours of many items at once.

use super::search::id_of;
use super::{PostgresIndex, SqlResult};
use crate::backend::{ProgressFn, SearchIndex};
use crate::duplicates::{NEIGHBOURS, NearPairs, QUERIES, check_threshold};
use crate::{ItemId, Result};

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
    check_threshold(threshold)?;
    let items = &index.place.tables.items;
    let page = format!("SELECT id FROM {items} WHERE id > $1 ORDER BY id LIMIT {QUERIES}");
    let pairs = format!(
        "SELECT item.id, other.id FROM {items} AS item CROSS JOIN LATERAL (
             SELECT id, embedding <#> item.embedding AS distance FROM {items}
             ORDER BY embedding <#> item.embedding LIMIT {NEIGHBOURS}
         ) AS other
         WHERE item.id = ANY($1) AND other.id <> item.id AND -other.distance >= $2"
    );
    let total = index.len()?;
    let mut near = NearPairs::default();
    let (mut last, mut done) = (i64::MIN, 0);
    loop {
        let ids = index.read("", |transaction| {
            let ids = transaction.query(&page, &[&last])?;
            ids.iter().map(|row| row.try_get(0)).collect::<SqlResult<Vec<i64>>>()
        })?;
        let Some(&end) = ids.last() else { return Ok(near.into_groups()) };
        let settings = index.settings(candidates, NEIGHBOURS, false)?;
        index.read(&settings, |transaction| {
            for row in transaction.query(&pairs, &[&ids, &f64::from(threshold)])? {
                near.insert(id_of(&row)?, row.try_get::<_, i64>(1)? as ItemId);
            }
            Ok(())
        })?;
        (last, done) = (end, done + ids.len());
        progress(done.min(total), total);
    }
}
