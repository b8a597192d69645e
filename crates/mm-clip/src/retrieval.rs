//! Recall and rank of cross-modal retrieval.

use crate::{Error, Result};
use serde::Serialize;
use tch::Tensor;

/// Retrieval metrics: how high the matches of queries rank among candidates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Retrieval {
    /// Share of queries whose match is the best candidate.
    pub recall_at_1: f64,
    /// Share of queries with a match among the best 5.
    pub recall_at_5: f64,
    /// Share of queries with a match among the best 10.
    pub recall_at_10: f64,
    /// The middle of the ranks of the best match, counted from 1.
    pub median_rank: f64,
}

impl Retrieval {
    /// Finds, for each unit row of `queries` `[N, D]`, the rank of its best match among the unit rows of
    /// `candidates` `[M, D]`. Query n and candidate m belong together where
    /// `query_ids[n] == candidate_ids[m]`: several captions of an image share its id. A candidate that scores
    /// as high as the match counts as better, so that equal scores for all candidates gain nothing.
    ///
    /// # Errors
    /// There is no query, not one id for each row, or a query without a match.
    pub fn measure(
        queries: &Tensor,
        query_ids: &[usize],
        candidates: &Tensor,
        candidate_ids: &[usize],
    ) -> Result<Self> {
        let (n, m) = (queries.size()[0] as usize, candidates.size()[0] as usize);
        if n == 0 || n != query_ids.len() || m != candidate_ids.len() {
            let (q, c) = (query_ids.len(), candidate_ids.len());
            return Err(Error::Evaluation(format!("{n} queries with {q} ids, {m} candidates with {c} ids")));
        }
        let mut ranks = Vec::with_capacity(n);
        const ROWS: i64 = 256; // bounds the scores in memory to 256 a candidate
        for start in (0..n as i64).step_by(ROWS as usize) {
            let rows = ROWS.min(n as i64 - start);
            let scores = tch::no_grad(|| {
                queries.narrow(0, start, rows).matmul(&candidates.transpose(0, 1)).contiguous()
            });
            let scores = Vec::<f32>::try_from(scores.view(-1))?;
            for (row, &id) in scores.chunks_exact(m).zip(&query_ids[start as usize..]) {
                ranks.push(rank(row, id, candidate_ids)?);
            }
        }
        Ok(Self::from_ranks(ranks))
    }

    /// The metrics of ranks counted from 1; there is at least one.
    fn from_ranks(mut ranks: Vec<usize>) -> Self {
        ranks.sort_unstable();
        let count = ranks.len();
        let within = |k: usize| ranks.partition_point(|&rank| rank <= k) as f64 / count as f64;
        let median_rank = (ranks[(count - 1) / 2] + ranks[count / 2]) as f64 / 2.0;
        Self { recall_at_1: within(1), recall_at_5: within(5), recall_at_10: within(10), median_rank }
    }

    /// The expectation of a random ranking of `candidates` with one match a query.
    pub fn chance(candidates: usize) -> Self {
        let within = |k: usize| k.min(candidates) as f64 / candidates as f64;
        let median_rank = (candidates + 1) as f64 / 2.0;
        Self { recall_at_1: within(1), recall_at_5: within(5), recall_at_10: within(10), median_rank }
    }

    /// The metrics with their names.
    pub fn named(&self) -> [(&'static str, f64); 4] {
        [
            ("r@1", self.recall_at_1),
            ("r@5", self.recall_at_5),
            ("r@10", self.recall_at_10),
            ("median_rank", self.median_rank),
        ]
    }
}

fn rank(scores: &[f32], id: usize, candidate_ids: &[usize]) -> Result<usize> {
    let own = |m: &usize| candidate_ids[*m] == id;
    let best = (0..scores.len()).filter(own).map(|m| scores[m]).max_by(f32::total_cmp);
    let best = best.ok_or_else(|| Error::Evaluation(format!("no candidate belongs to query {id}")))?;
    // Not a number is no match: it ranks behind everything.
    Ok(1 + (0..scores.len()).filter(|m| !own(m)).filter(|&m| best.is_nan() || scores[m] >= best).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn equal_pairs_are_found_first() {
        let eye = Tensor::eye(12, (Kind::Float, Device::Cpu));
        let ids: Vec<usize> = (0..12).collect();
        let found = Retrieval::measure(&eye, &ids, &eye, &ids).unwrap();
        assert_eq!(
            found,
            Retrieval { recall_at_1: 1.0, recall_at_5: 1.0, recall_at_10: 1.0, median_rank: 1.0 }
        );
    }

    #[test]
    fn equal_scores_for_all_candidates_find_nothing() {
        let same = Tensor::ones([20, 3], (Kind::Float, Device::Cpu));
        let ids: Vec<usize> = (0..20).collect();
        let found = Retrieval::measure(&same, &ids, &same, &ids).unwrap();
        assert_eq!((found.recall_at_10, found.median_rank), (0.0, 20.0));
    }

    #[test]
    fn the_best_of_several_matches_counts() {
        let query = Tensor::from_slice(&[1f32, 0.0]).view([1, 2]);
        let candidates = Tensor::from_slice(&[0.9f32, 0.0, 0.5, 0.0, 0.8, 0.0]).view([3, 2]);
        let found = Retrieval::measure(&query, &[7], &candidates, &[1, 7, 7]).unwrap();
        assert_eq!((found.recall_at_1, found.median_rank), (0.0, 2.0));
    }

    #[test]
    fn ranks_have_the_metrics_of_their_definition() {
        let found = Retrieval::from_ranks(vec![1, 3, 7, 40]);
        assert_eq!(found.named().map(|(_, value)| value), [0.25, 0.5, 0.75, 5.0]);
    }
}
