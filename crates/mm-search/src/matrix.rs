//! Exact search by matrix products, for many queries.
//!
//! A product need not be exact for the result to be: where every score is off by at most an error e, the k
//! best are among the rows whose scores are within 2e of the k-th best, and these few are compared again. So
//! products are in bf16 where that is faster, which the first blocks show, and the result is the same.

use crate::exact::{BLOCK, rescore};
use crate::segment::{Block, Rows};
use crate::top_k::{Hit, TopK};
use crate::{ItemId, Result, RowType};
use mm_sys::{PackedLinear, PostOp};
use rayon::prelude::*;
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

/// The most queries that meet a block at once: their scores are 8 MB.
const QUERIES: usize = 1024;

/// The type of the products, with the times of the blocks that it has computed.
struct Product {
    kind: Kind,
    queries: PackedLinear,
    /// The greatest error of a score of unit rows.
    error: f32,
    fastest: Duration,
}

/// Blocks that each type computes before the faster one computes the others.
const TRIALS: usize = 3;

/// The `k` best items for each of `queries` in `blocks`, among those that `accepts`.
///
/// # Errors
/// libtorch refuses a product.
pub(crate) fn search(
    rows: &Rows,
    blocks: &[Block],
    queries: &[Vec<f32>],
    k: usize,
    accepts: &(dyn Fn(ItemId) -> bool + Sync),
) -> Result<Vec<Vec<Hit>>> {
    let mut found = Vec::with_capacity(queries.len());
    for queries in queries.chunks(QUERIES) {
        found.extend(search_together(rows, blocks, queries, k, accepts)?);
    }
    Ok(found)
}

fn search_together(
    rows: &Rows,
    blocks: &[Block],
    queries: &[Vec<f32>],
    k: usize,
    accepts: &(dyn Fn(ItemId) -> bool + Sync),
) -> Result<Vec<Vec<Hit>>> {
    let (row_bytes, width) = (rows.row_type().row_bytes(rows.dim()), queries.len());
    let mut products = [Kind::Float, Kind::BFloat16]
        .map(|kind| Product::new(kind, queries, rows.dim()))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let norms: Vec<f32> = queries.iter().map(|query| norm(query)).collect();
    let new = |_| norms.iter().map(|norm| Shortlist::new(k, *norm)).collect::<Vec<_>>();
    let mut lists: Vec<Vec<Shortlist>> = (0..rayon::current_num_threads()).map(new).collect();
    let mut scores = vec![0f32; BLOCK * width];
    for (at, block) in blocks.iter().enumerate() {
        let count = block.bytes().len() / row_bytes;
        let which = match at < TRIALS * products.len() {
            true => at % products.len(),
            false => usize::from(products[1].fastest < products[0].fastest),
        };
        let (product, scores) = (&mut products[which], &mut scores[..count * width]);
        let begun = Instant::now();
        product.multiply(&tensor_of(rows, block, count)?, scores)?;
        if count == BLOCK {
            product.fastest = product.fastest.min(begun.elapsed());
        }
        let (share, error) = (count.div_ceil(lists.len()), product.error);
        let parts = lists.par_iter_mut().zip(scores.par_chunks(share * width)).enumerate();
        parts.for_each(|(part, (lists, scores))| {
            for (row, scores) in scores.chunks_exact(width).enumerate() {
                let id = block.id(part * share + row);
                for (list, &score) in lists.iter_mut().zip(scores) {
                    if score >= list.least && accepts(id) {
                        list.push(Hit { id, score }, error);
                    }
                }
            }
        });
    }
    let merge =
        |a: Vec<Shortlist>, b: Vec<Shortlist>| a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect();
    let lists: Vec<Shortlist> = lists.into_iter().reduce(merge).unwrap_or_default();
    let rescored = |(list, query): (Shortlist, &Vec<f32>)| rescore(rows, query, k, list.into_hits());
    Ok(lists.into_par_iter().zip(queries).map(rescored).collect())
}

impl Product {
    fn new(kind: Kind, queries: &[Vec<f32>], dim: usize) -> Result<Self> {
        let matrix = Tensor::from_slice(&queries.concat()).f_view([queries.len() as i64, dim as i64])?;
        let sums = dim as f32 * f32::EPSILON;
        // bf16 rounds each number of both rows, and the score, by 2^-9.
        let error = if kind == Kind::Float { sums } else { sums + 3.0 / 512.0 };
        let queries = PackedLinear::new(&matrix.f_to_kind(kind)?, None);
        Ok(Self { kind, queries, error, fastest: Duration::MAX })
    }

    /// Multiplies `rows` `[count, dim]` by the queries: `scores` is `[count, queries]`.
    fn multiply(&self, rows: &Tensor, scores: &mut [f32]) -> Result<()> {
        let product = mm_sys::inference_mode(|| -> Result<Tensor> {
            let product = self.queries.forward(&rows.f_to_kind(self.kind)?, PostOp::None);
            Ok(product.f_to_kind(Kind::Float)?.f_contiguous()?)
        })?;
        Ok(product.f_copy_data(scores, scores.len())?)
    }
}

/// The hits that may be among the `k` best.
struct Shortlist {
    best: TopK,
    hits: Vec<Hit>,
    /// The norm of the query, by which errors of scores grow.
    norm: f32,
    /// The greatest error of the scores so far.
    error: f32,
    /// The score that a hit must reach.
    least: f32,
    /// The number of hits at which those that have fallen behind are dropped.
    full: usize,
}

/// The norm that no stored row exceeds: one, and the rounding of its numbers.
const ROW_NORM: f32 = 1.02;

impl Shortlist {
    fn new(k: usize, norm: f32) -> Self {
        let (best, least) = (TopK::new(k), f32::NEG_INFINITY);
        Self { best, hits: Vec::new(), norm, error: 0.0, least, full: 4 * k + 64 }
    }

    /// Adds a hit whose score may be off by `error`.
    fn push(&mut self, hit: Hit, error: f32) {
        self.error = self.error.max(error);
        self.best.push(hit);
        self.hits.push(hit);
        self.least = self.best.threshold() - 2.0 * self.error * self.norm * ROW_NORM;
        if self.hits.len() >= self.full {
            self.hits.retain(|hit| hit.score >= self.least);
            self.full = self.full.max(2 * self.hits.len());
        }
    }

    fn merge(mut self, other: Self) -> Self {
        other.hits.into_iter().for_each(|hit| self.push(hit, other.error));
        self
    }

    fn into_hits(self) -> Vec<Hit> {
        self.hits.into_iter().filter(|hit| hit.score >= self.least).collect()
    }
}

fn norm(row: &[f32]) -> f32 {
    row.iter().map(|x| x * x).sum::<f32>().sqrt()
}

/// The rows of a block, `[count, dim]` in f32.
fn tensor_of(rows: &Rows, block: &Block, count: usize) -> Result<Tensor> {
    let (count, dim) = (count as i64, rows.dim() as i64);
    let of = |kind| Tensor::f_from_data_size(block.bytes(), &[count, dim], kind);
    Ok(match rows.row_type() {
        RowType::F32 => of(Kind::Float)?,
        RowType::F16 => of(Kind::Half)?.f_to_kind(Kind::Float)?,
        RowType::Int8 => {
            let bytes = Tensor::f_from_data_size(block.bytes(), &[count, dim + 4], Kind::Int8)?;
            let scales = bytes.f_narrow(1, 0, 4)?.f_contiguous()?.f_view_dtype(Kind::Float)?; // [count, 1]
            bytes.f_narrow(1, 4, dim)?.f_to_kind(Kind::Float)?.f_mul(&scales)?
        }
    })
}
