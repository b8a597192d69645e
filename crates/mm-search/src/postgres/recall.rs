//! The recall of pgvector's graph against exact search.

use super::PostgresIndex;
use crate::backend::{SearchIndex, SearchRequest};
use crate::{Error, RecallReport, RecallRow, Result};
use std::collections::HashSet;
use std::time::Instant;

/// As [`Index::recall`](crate::Index::recall), with the queries of one connection one after the other.
///
/// # Errors
/// There is no query or no graph, or as [`PostgresIndex::search`](SearchIndex::search).
pub(super) fn recall(
    index: &PostgresIndex,
    queries: &[Vec<f32>],
    k: usize,
    candidates: &[usize],
) -> Result<RecallReport> {
    if queries.is_empty() || k == 0 {
        return Err(Error::Query("there is nothing to find: give queries and k".to_owned()));
    }
    if index.graph_len()?.is_none() {
        let problem = "it has no graph, so every search is exact: build one with `mm search index --graph`";
        return Err(index.place.problem(problem));
    }
    let timed = |candidates: Option<usize>| -> Result<(Vec<HashSet<u64>>, f64)> {
        let begun = Instant::now();
        let found = index.search(queries, &SearchRequest { k, filter: None, candidates })?;
        let rate = queries.len() as f64 / begun.elapsed().as_secs_f64();
        Ok((found.into_iter().map(|hits| hits.iter().map(|hit| hit.id).collect()).collect(), rate))
    };
    let (truth, exact_queries_per_second) = timed(None)?;
    let wanted: usize = truth.iter().map(HashSet::len).sum();
    let row = |&candidates: &usize| -> Result<RecallRow> {
        let (found, queries_per_second) = timed(Some(candidates))?;
        let common: usize = truth.iter().zip(&found).map(|(a, b)| a.intersection(b).count()).sum();
        Ok(RecallRow { candidates, recall: common as f64 / wanted.max(1) as f64, queries_per_second })
    };
    let graph = candidates.iter().map(row).collect::<Result<_>>()?;
    Ok(RecallReport { queries: queries.len(), k, exact_queries_per_second, graph })
}
