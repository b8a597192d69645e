//! The choice of results that differ from each other.

use crate::{Error, Hit, Result};

/// Items among which diverse results are chosen, for each result.
pub(crate) const POOL: usize = 10;

/// Checks a diversity that a user gave.
///
/// # Errors
/// It is not between 0 and 1.
pub(crate) fn check_diversity(diversity: f32) -> Result<()> {
    match (0.0..=1.0).contains(&diversity) {
        true => Ok(()),
        false => Err(Error::Query(format!("the diversity {diversity} is not between 0 and 1"))),
    }
}

/// `count` of `pool`, hits with their rows: each next one has the greatest `(1 - diversity) * score -
/// diversity * similarity` to the most similar result before it (maximal marginal relevance; Carbonell and
/// Goldstein 1998).
pub(crate) fn diverse(pool: Vec<(Hit, Vec<f32>)>, count: usize, diversity: f32) -> Vec<Hit> {
    let mut left: Vec<(Hit, Vec<f32>, f32)> =
        pool.into_iter().map(|(hit, row)| (hit, row, f32::NEG_INFINITY)).collect();
    let mut chosen: Vec<Hit> = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        let value = |(hit, _, nearest): &(Hit, Vec<f32>, f32)| {
            let nearest = if nearest.is_finite() { *nearest } else { 0.0 };
            (1.0 - diversity) * hit.score - diversity * nearest
        };
        let mut best = 0;
        for at in 1..left.len() {
            if value(&left[at]) > value(&left[best]) {
                best = at;
            }
        }
        let (hit, row, _) = left.remove(best);
        for (_, other, nearest) in &mut left {
            *nearest = nearest.max(row.iter().zip(other.iter()).map(|(a, b)| a * b).sum());
        }
        chosen.push(hit);
    }
    chosen
}
