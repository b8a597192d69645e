//! Exact search: every row is compared with every query.

use crate::segment::{Block, Rows};
use crate::top_k::{Hit, TopK};
use crate::{IdSet, ItemId, Result, matrix};
use rayon::prelude::*;

/// With this many queries a matrix product is faster than products of single rows.
const MATRIX_QUERIES: usize = 8;

/// Rows of a block.
pub(crate) const BLOCK: usize = 2048;

/// The `k` best items for each of `queries`, unit rows, among those that `accepts`, from row `from(segment)`
/// of each segment on.
///
/// # Errors
/// libtorch refuses a product.
pub(crate) fn search(
    rows: &Rows,
    queries: &[Vec<f32>],
    k: usize,
    accepts: &(dyn Fn(ItemId) -> bool + Sync),
    from: impl Fn(u32) -> usize,
) -> Result<Vec<Vec<Hit>>> {
    let blocks = rows.blocks(BLOCK, from);
    if blocks.is_empty() {
        return Ok(vec![Vec::new(); queries.len()]);
    }
    if queries.len() < MATRIX_QUERIES {
        return Ok(by_rows(rows, &blocks, queries, k, accepts));
    }
    matrix::search(rows, &blocks, queries, k, accepts)
}

/// The `k` best among the items of `subset`.
pub(crate) fn search_subset(rows: &Rows, query: &[f32], k: usize, subset: &IdSet) -> Vec<Hit> {
    let ids: Vec<ItemId> = subset.iter().collect();
    let best = |best: TopK, ids: &[ItemId]| {
        let hits = ids.iter().filter_map(|&id| rows.score(id, query).map(|score| Hit { id, score }));
        hits.fold(best, pushed)
    };
    let new = || TopK::new(k);
    ids.par_chunks(BLOCK).fold(new, best).reduce(new, TopK::merge).into_sorted()
}

fn pushed(mut best: TopK, hit: Hit) -> TopK {
    best.push(hit);
    best
}

fn by_rows(
    rows: &Rows,
    blocks: &[Block],
    queries: &[Vec<f32>],
    k: usize,
    accepts: &(dyn Fn(ItemId) -> bool + Sync),
) -> Vec<Vec<Hit>> {
    let (row_type, row_bytes) = (rows.row_type(), rows.row_type().row_bytes(rows.dim()));
    let new = || vec![TopK::new(k); queries.len()];
    let compare = |mut best: Vec<TopK>, block: &Block| {
        for (id, bytes) in block.rows(row_bytes) {
            for (best, query) in best.iter_mut().zip(queries) {
                let score = row_type.dot(bytes, query);
                if score >= best.threshold() && accepts(id) {
                    best.push(Hit { id, score });
                }
            }
        }
        best
    };
    let merge = |a: Vec<TopK>, b: Vec<TopK>| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect();
    let best = blocks.par_iter().fold(new, compare).reduce(new, merge);
    best.into_iter().map(TopK::into_sorted).collect()
}

/// The `k` best of `hits` by their scores from [`RowType::dot`].
pub(crate) fn rescore(rows: &Rows, query: &[f32], k: usize, hits: Vec<Hit>) -> Vec<Hit> {
    let scored = |hit: Hit| rows.score(hit.id, query).map(|score| Hit { score, ..hit });
    hits.into_iter().filter_map(scored).fold(TopK::new(k), pushed).into_sorted()
}
