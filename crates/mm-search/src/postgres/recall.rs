//! The recall of pgvector's graph against exact search.

use super::PostgresIndex;
use crate::backend::{SearchIndex, SearchRequest};
use crate::evaluate::{NO_GRAPH, measure};
use crate::{RecallReport, Result};

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
    if index.graph_len()?.is_none() {
        return Err(index.place.problem(NO_GRAPH));
    }
    let search = |candidates| index.search(queries, &SearchRequest { k, filter: None, candidates });
    measure(queries.len(), k, candidates, &search)
}
