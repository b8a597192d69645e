//! Queries of several parts, and results that differ from each other.

use crate::diverse::{POOL, check_diversity, diverse};
use crate::{Error, Hit, Index, ItemId, Result, SearchOptions};

/// A part of a query.
#[derive(Clone, Debug)]
pub struct QueryPart {
    /// The unit row of a text, an image or an item.
    pub row: Vec<f32>,
    /// Its weight; a negative one leads away from it.
    pub weight: f32,
}

/// The unit row of a query: the weighted sum of its parts.
///
/// # Errors
/// There is no part, a weight is not finite, or the parts cancel each other.
pub fn combine(parts: &[QueryPart]) -> Result<Vec<f32>> {
    let Some(first) = parts.first() else {
        return Err(Error::Query("it is empty: give a text or an image".to_owned()));
    };
    let mut sum = vec![0f32; first.row.len()];
    for part in parts {
        if !part.weight.is_finite() {
            return Err(Error::Query(format!("the weight {} is no number", part.weight)));
        }
        if part.row.len() != sum.len() {
            return Err(Error::Query("its parts are embeddings of different models".to_owned()));
        }
        sum.iter_mut().zip(&part.row).for_each(|(sum, x)| *sum += part.weight * x);
    }
    let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm < 1e-4 {
        return Err(Error::Query("its parts cancel each other: change their weights".to_owned()));
    }
    Ok(sum.into_iter().map(|x| x / norm).collect())
}

impl Index {
    /// As [`Index::search`] of one query, with results that differ from each other: each next one has the
    /// greatest `(1 - diversity) * score - diversity * similarity` to the most similar result before it
    /// (maximal marginal relevance; Carbonell and Goldstein 1998). `diversity` is from 0 to 1.
    ///
    /// # Errors
    /// As [`Index::search`], or `diversity` is out of its range.
    pub fn search_diverse(&self, query: &[f32], options: &SearchOptions, diversity: f32) -> Result<Vec<Hit>> {
        check_diversity(diversity)?;
        let pool = SearchOptions { k: options.k.saturating_mul(POOL), ..options.clone() };
        let found = self.search(&[query.to_vec()], &pool)?.pop().unwrap_or_default();
        let with_rows = found.into_iter().filter_map(|hit| self.row(hit.id).map(|row| (hit, row))).collect();
        Ok(diverse(with_rows, options.k, diversity))
    }

    /// The items that are most similar to the item `id`, without itself.
    ///
    /// # Errors
    /// As [`Index::search`], or there is no such item.
    pub fn similar(&self, id: ItemId, options: &SearchOptions) -> Result<Vec<Hit>> {
        let row = self.row(id).ok_or_else(|| Error::Query(format!("the index has no item {id}")))?;
        let options = SearchOptions { k: options.k + 1, ..options.clone() };
        let mut found = self.search(&[row], &options)?.pop().unwrap_or_default();
        found.retain(|hit| hit.id != id);
        found.truncate(options.k - 1);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(row: [f32; 2], weight: f32) -> QueryPart {
        QueryPart { row: row.to_vec(), weight }
    }

    #[test]
    fn a_query_is_the_weighted_sum_of_its_parts_as_a_unit_row() {
        assert_eq!(combine(&[part([1.0, 0.0], 3.0), part([0.0, 1.0], -4.0)]).unwrap(), [0.6, -0.8]);
        let refused = |parts: &[QueryPart]| combine(parts).unwrap_err().to_string();
        assert!(refused(&[]).contains("give a text or an image"));
        assert!(refused(&[part([1.0, 0.0], 1.0), part([1.0, 0.0], -1.0)]).contains("cancel"));
        assert!(refused(&[part([1.0, 0.0], f32::NAN)]).contains("no number"));
    }
}
