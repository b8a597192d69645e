//! Multi-head attention: self-attention, cross-attention and decoding with cached keys and values.

mod cache;
mod mask;
mod scores;
#[cfg(test)]
mod tests;

pub use cache::KeyValues;
pub(super) use cache::LayerCache;
pub use mask::AttentionMask;

use super::{Dropout, Linear};
use crate::Precision;
use scores::{attend, attend_with_weights, merge_heads, split_heads};
use tch::{Kind, Tensor};

/// Multi-head attention (Vaswani et al. 2017, section 3.2).
///
/// Self-attention has its three projections in one product: `in_proj` `[3 width, width]` (rows of q, then k,
/// then v). Cross-attention reads keys and values from a context of a width of its own: `q_proj`
/// `[width, width]` and `kv_proj` `[2 width, context_width]` (rows of k, then v). Both end in `out_proj`
/// `[width, width]`.
///
/// Grouped self-attention (Ainslie et al. 2023, "GQA: Training generalized multi-query transformer models")
/// has fewer heads of keys and values than of queries, of any width: `q_proj` `[heads * head, width]`,
/// `kv_proj` `[2 kv_heads * head, width]` and `out_proj` `[width, heads * head]`. In a stack with rotary
/// positions its queries and keys are turned by them; keys are cached turned, and before they are repeated.
/// Once packed, it has its projections in one product too.
#[derive(Debug)]
pub struct Attention {
    projections: Projections,
    out_proj: Linear,
    heads: i64,
    /// Of the attention weights.
    dropout: Dropout,
}

#[derive(Debug)]
enum Projections {
    Joint {
        in_proj: Linear,
    },
    Cross {
        q_proj: Linear,
        kv_proj: Linear,
    },
    Grouped {
        q_proj: Linear,
        kv_proj: Linear,
        kv_heads: i64,
    },
    /// Rows of q, then k, then v.
    GroupedJoint {
        in_proj: Linear,
        kv_heads: i64,
    },
}

impl Attention {
    /// Self-attention. `heads` divides the width.
    pub fn new(in_proj: Linear, out_proj: Linear, heads: i64) -> Self {
        Self { projections: Projections::Joint { in_proj }, out_proj, heads, dropout: Dropout::default() }
    }

    /// Cross-attention. `heads` divides the width.
    pub fn cross(q_proj: Linear, kv_proj: Linear, out_proj: Linear, heads: i64) -> Self {
        Self {
            projections: Projections::Cross { q_proj, kv_proj },
            out_proj,
            heads,
            dropout: Dropout::default(),
        }
    }

    /// Grouped self-attention. `kv_heads` divides `heads`.
    pub fn grouped(q_proj: Linear, kv_proj: Linear, out_proj: Linear, heads: i64, kv_heads: i64) -> Self {
        let projections = Projections::Grouped { q_proj, kv_proj, kv_heads };
        Self { projections, out_proj, heads, dropout: Dropout::default() }
    }

    /// The same attention with dropout of its weights.
    pub fn with_dropout(self, probability: f64) -> Self {
        Self { dropout: Dropout::new(probability), ..self }
    }

    /// Turns dropout on or off.
    pub fn set_training(&self, on: bool) {
        self.dropout.set_training(on);
    }

    /// Self-attention over `x` `[B, L, width]`, to the same shape.
    ///
    /// # Panics
    /// This is cross-attention.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Tensor {
        let (q, k, v) = self.project(x, mask);
        self.out_proj.forward(&merge_heads(&attend(&q, &k, &v, &prepare(mask, &q, &k), &self.dropout)))
    }

    /// [`Attention::forward`] at one position a row, `positions` `[B]` (i64): `[B, width]`.
    pub(super) fn forward_at(&self, x: &Tensor, mask: &AttentionMask, positions: &Tensor) -> Tensor {
        let (q, k, v) = self.project(x, mask);
        let attended = merge_heads(&attend(&q, &k, &v, &prepare(mask, &q, &k), &self.dropout));
        self.out_proj.forward(&take_positions(&attended, positions))
    }

    /// [`Attention::forward`] at the positions after those in `cache`, which it appends: `x` `[B, L, width]`
    /// to the same shape. `mask` covers all keys, those in the cache first. No gradient reaches them.
    pub(super) fn forward_cached(&self, x: &Tensor, mask: &AttentionMask, cache: &mut LayerCache) -> Tensor {
        let (q, k, v) = self.project(x, mask);
        let KeyValues { keys, values } = cache.append(&k, &v);
        self.out_proj.forward(&merge_heads(&attend(
            &q,
            &keys,
            &values,
            &prepare(mask, &q, &keys),
            &self.dropout,
        )))
    }

    /// As [`Attention::forward`], also giving the attention weights `[B, heads, L, L]`, which are part of the
    /// graph. Slower: for looking at a model, not for training it.
    ///
    /// # Panics
    /// This is cross-attention.
    pub fn forward_with_weights(&self, x: &Tensor, mask: &AttentionMask) -> (Tensor, Tensor) {
        let (q, k, v) = self.project(x, mask);
        let (y, weights) = attend_with_weights(&q, &k, &v, &prepare(mask, &q, &k));
        (self.out_proj.forward(&merge_heads(&y)), weights)
    }

    /// Cross-attention of `x` `[B, L, width]` over `context` `[G, S, context_width]`, to `x`'s shape. B is a
    /// multiple of G: rows `i * B / G` to `(i + 1) * B / G` read context `i`, whose keys and values are
    /// computed once for all of them. `mask` is over S, and has one row for all queries where B is not G.
    ///
    /// # Panics
    /// This is self-attention, or B is not a multiple of G.
    pub fn forward_context(&self, x: &Tensor, context: &Tensor, mask: &AttentionMask) -> Tensor {
        self.forward_projected(x, &self.project_context(context), mask)
    }

    /// As [`Attention::forward_context`], with the keys and values of [`Attention::project_context`].
    ///
    /// # Panics
    /// As [`Attention::forward_context`].
    pub fn forward_projected(&self, x: &Tensor, context: &KeyValues, mask: &AttentionMask) -> Tensor {
        let KeyValues { keys, values } = context;
        let q = self.queries_by_context(x, keys.size()[0]);
        let attended = merge_heads(&attend(&q, keys, values, &prepare(mask, &q, keys), &self.dropout));
        self.out_proj.forward(&attended.view_as(x))
    }

    /// As [`Attention::forward_context`], also giving the attention weights `[B, heads, L, S]`, which are
    /// part of the graph. Slower; for analysis.
    pub(super) fn forward_context_with_weights(
        &self,
        x: &Tensor,
        context: &Tensor,
        mask: &AttentionMask,
    ) -> (Tensor, Tensor) {
        self.forward_projected_with_weights(x, &self.project_context(context), mask)
    }

    /// As [`Attention::forward_projected`], also giving the attention weights `[B, heads, L, S]`, which are
    /// part of the graph. Slower; for analysis.
    ///
    /// # Panics
    /// As [`Attention::forward_context`].
    pub fn forward_projected_with_weights(
        &self,
        x: &Tensor,
        context: &KeyValues,
        mask: &AttentionMask,
    ) -> (Tensor, Tensor) {
        let KeyValues { keys, values } = context;
        let (batch, length, _) = x.size3().expect("attention input is [B, L, width]");
        let q = self.queries_by_context(x, keys.size()[0]); // [G, heads, B / G * L, head]
        let (attended, weights) = attend_with_weights(&q, keys, values, &prepare(mask, &q, keys));
        let (groups, heads, _, states) = weights.size4().expect("weights are [G, heads, L, S]");
        let weights = weights.view([groups, heads, batch / groups, length, states]).transpose(1, 2);
        let attended = merge_heads(&attended).view_as(x);
        (self.out_proj.forward(&attended), weights.reshape([batch, heads, length, states]))
    }

    /// The queries of `x` `[B, L, width]`, where the rows of one of `groups` contexts are queries of one
    /// sequence: `[groups, heads, B / groups * L, head]`.
    fn queries_by_context(&self, x: &Tensor, groups: i64) -> Tensor {
        let Projections::Cross { q_proj, .. } = &self.projections else {
            panic!("self-attention has no context");
        };
        let (batch, length, width) = x.size3().expect("attention input is [B, L, width]");
        let rows = batch / groups.max(1);
        assert!(rows * groups == batch, "{batch} rows of queries for {groups} contexts");
        split_heads(&q_proj.forward(x).view([groups, rows * length, width]), self.heads)
    }

    /// The keys and values of `context` `[G, S, context_width]`.
    ///
    /// # Panics
    /// This is self-attention.
    pub fn project_context(&self, context: &Tensor) -> KeyValues {
        let Projections::Cross { kv_proj, .. } = &self.projections else {
            panic!("self-attention has no context");
        };
        let kv = kv_proj.forward(context).chunk(2, -1);
        KeyValues { keys: split_heads(&kv[0], self.heads), values: split_heads(&kv[1], self.heads) }
    }

    /// `x` `[B, L, width]` to q `[B, heads, L, head]`, and k and v `[B, kv_heads, L, head]`.
    fn project(&self, x: &Tensor, mask: &AttentionMask) -> (Tensor, Tensor, Tensor) {
        let (batch, length, width) = x.size3().expect("attention input is [B, L, width]");
        match &self.projections {
            // Views into one tensor.
            Projections::Joint { in_proj } => {
                let qkv = in_proj.forward(x).view([batch, length, 3, self.heads, width / self.heads]);
                let qkv = qkv.permute([2, 0, 3, 1, 4]); // [3, B, heads, L, width / heads]
                (qkv.get(0), qkv.get(1), qkv.get(2))
            }
            Projections::Grouped { q_proj, kv_proj, kv_heads } => {
                let (q, kv) = (q_proj.forward(x), kv_proj.forward(x));
                let head = q.size()[2] / self.heads;
                let mut q = q.view([batch, length, self.heads, head]);
                let kv = kv.view([batch, length, 2, *kv_heads, head]);
                let (mut k, v) = (kv.select(2, 0), kv.select(2, 1));
                if let Some(table) = mask.rotary() {
                    (q, k) = (table.rotate(&q), table.rotate(&k));
                }
                (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            }
            Projections::GroupedJoint { in_proj, kv_heads } => {
                let qkv = in_proj.forward(x);
                let (turned, all) = (self.heads + kv_heads, self.heads + 2 * kv_heads);
                let qkv = qkv.view([batch, length, all, qkv.size()[2] / all]);
                let mut qk = qkv.narrow(2, 0, turned); // [B, L, heads + kv_heads, head]
                if let Some(table) = mask.rotary() {
                    qk = table.rotate(&qk);
                }
                let part = |x: &Tensor, start, heads| x.narrow(2, start, heads).transpose(1, 2);
                (part(&qk, 0, self.heads), part(&qk, self.heads, *kv_heads), part(&qkv, turned, *kv_heads))
            }
            Projections::Cross { .. } => panic!("cross-attention needs a context"),
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        if let Projections::Grouped { q_proj, kv_proj, kv_heads } = &self.projections
            && let Some(in_proj) = Linear::joined(q_proj, kv_proj)
        {
            self.projections = Projections::GroupedJoint { in_proj, kv_heads: *kv_heads };
        }
        match &mut self.projections {
            Projections::Joint { in_proj } | Projections::GroupedJoint { in_proj, .. } => {
                in_proj.pack(precision);
            }
            Projections::Cross { q_proj, kv_proj } | Projections::Grouped { q_proj, kv_proj, .. } => {
                q_proj.pack(precision);
                kv_proj.pack(precision);
            }
        }
        self.out_proj.pack(precision);
    }
}

/// `mask` for queries `q` and keys `k`, `[B, heads, L or S, head]`.
fn prepare(mask: &AttentionMask, q: &Tensor, k: &Tensor) -> AttentionMask {
    mask.prepared(q.size()[2], k.size()[2], q.device())
}

/// From `x` `[B, L, D]`, the vectors `[B, D]` at `positions` `[B]` (i64).
pub(super) fn take_positions(x: &Tensor, positions: &Tensor) -> Tensor {
    let (batch, length, width) = x.size3().expect("activations are [B, L, D]");
    let rows = Tensor::arange(batch, (Kind::Int64, x.device())) * length + positions;
    x.reshape([batch * length, width]).index_select(0, &rows)
}
