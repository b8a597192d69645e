//! The recall of the graph against exact search.

use crate::{Error, Hit, Index, Result, SearchOptions};
use serde::Serialize;
use std::collections::HashSet;
use std::time::Instant;

/// How the graph compares with exact search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecallReport {
    /// The number of queries.
    pub queries: usize,
    /// The number of items that a query is to find.
    pub k: usize,
    /// Queries per second of exact search, in one batch.
    pub exact_queries_per_second: f64,
    /// The graph with several numbers of candidates.
    pub graph: Vec<RecallRow>,
}

/// The graph with one number of candidates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecallRow {
    /// Candidates of a query.
    pub candidates: usize,
    /// The share of the items of exact search that the graph finds.
    pub recall: f64,
    /// Queries per second.
    pub queries_per_second: f64,
}

impl Index {
    /// Compares the graph with exact search on `queries`, unit rows, for each number of `candidates`.
    ///
    /// # Errors
    /// There is no query or no graph, or as [`Index::search`].
    pub fn recall(&self, queries: &[Vec<f32>], k: usize, candidates: &[usize]) -> Result<RecallReport> {
        if self.graph_len().is_none() {
            return Err(Error::index(self.folder(), NO_GRAPH));
        }
        let search = |candidates| self.search(queries, &SearchOptions { k, among: None, candidates });
        measure(queries.len(), k, candidates, &search)
    }
}

/// What is wrong with an index without a graph.
pub(crate) const NO_GRAPH: &str =
    "it has no graph, so every search is exact: build one with `mm search index --graph`";

/// Compares the searches of `queries` queries with each number of `candidates` with exact ones.
///
/// # Errors
/// There is no query, or those of `search`.
pub(crate) fn measure(
    queries: usize,
    k: usize,
    candidates: &[usize],
    search: &dyn Fn(Option<usize>) -> Result<Vec<Vec<Hit>>>,
) -> Result<RecallReport> {
    if queries == 0 || k == 0 {
        return Err(Error::Query("there is nothing to find: give queries and k".to_owned()));
    }
    let timed = |candidates: Option<usize>| -> Result<(Vec<HashSet<u64>>, f64)> {
        let begun = Instant::now();
        let found = search(candidates)?;
        let rate = queries as f64 / begun.elapsed().as_secs_f64();
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
    Ok(RecallReport { queries, k, exact_queries_per_second, graph })
}
