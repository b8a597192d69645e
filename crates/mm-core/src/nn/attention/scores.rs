//! The softmax of scores over keys, and the weighted sum of values.

use super::{AttentionMask, Dropout};
use tch::{Device, Kind, Tensor};

/// The longest sequence that [`attend_all_heads`] is faster for, forward and backward, than libtorch's fused
/// kernel.
const SHORT: i64 = 128;

/// With at least this many keys a query, in f32, [`attend_all_heads`] is faster than libtorch's fused kernel,
/// which works on blocks of queries: twice as fast for 3 beams over the 577 tokens of an image.
const FEW_QUERIES: i64 = 8;

/// Attention of `q` `[B, heads, L, head]` over `k` and `v` `[B, kv_heads, S, head]` under a prepared mask, to
/// `[B, heads, L, head]`, with dropout of the weights. Groups of `heads / kv_heads` heads share keys.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &AttentionMask, dropout: &Dropout) -> Tensor {
    let (heads, kv_heads) = (q.size()[1], k.size()[1]);
    if heads != kv_heads {
        return match q.size()[2] {
            1 => attend_in_groups(q, k, v, mask, dropout),
            _ => attend(q, &repeated(k, heads), &repeated(v, heads), mask, dropout),
        };
    }
    let (queries, keys) = (q.size()[2], k.size()[2]);
    let is_short = q.kind() == Kind::BFloat16 && queries.max(keys) <= SHORT;
    let has_few_queries = q.kind() == Kind::Float && queries * FEW_QUERIES <= keys;
    // libtorch's fused kernels for a CPU have no dropout.
    if dropout.is_active() || q.device() == Device::Cpu && (is_short || has_few_queries) {
        return attend_all_heads(q, k, v, mask, dropout);
    }
    let (bias, is_causal) = mask.prepared_parts();
    let bias = bias.map(|bias| bias.to_kind(q.kind()));
    Tensor::scaled_dot_product_attention(q, k, v, bias, 0.0, is_causal, None, false)
}

/// [`attend`] for one query a head, as in decoding: the queries of the heads that share keys are those of one
/// sequence, so that keys and values are read once and never copied.
fn attend_in_groups(q: &Tensor, k: &Tensor, v: &Tensor, mask: &AttentionMask, dropout: &Dropout) -> Tensor {
    let (batch, heads, _, head) = q.size4().expect("queries are [B, heads, L, head]");
    let groups = k.size()[1];
    let queries = q.reshape([batch, groups, heads / groups, head]);
    attend(&queries, k, v, &mask.in_groups(groups), dropout).reshape([batch, heads, 1, head])
}

/// Keys or values `[B, kv_heads, S, head]` once for each of `heads` heads: `[B, heads, S, head]`.
fn repeated(x: &Tensor, heads: i64) -> Tensor {
    let (batch, kv_heads, length, head) = x.size4().expect("keys and values are [B, kv_heads, S, head]");
    let shape = [batch, kv_heads, heads / kv_heads, length, head];
    x.unsqueeze(2).expand(shape, false).reshape([batch, heads, length, head])
}

/// As [`attend`], also giving the weights `[B, heads, L, S]`, in the order of operations of the field's
/// reference code.
pub(super) fn attend_with_weights(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: &AttentionMask,
) -> (Tensor, Tensor) {
    let heads = q.size()[1];
    if heads != k.size()[1] {
        return attend_with_weights(q, &repeated(k, heads), &repeated(v, heads), mask);
    }
    let scores = q.matmul(&k.transpose(-2, -1)) / (q.size()[3] as f64).sqrt();
    let weights = mask.apply(scores).softmax(-1, None);
    (weights.matmul(v), weights)
}

/// Attention as two products over all heads of the batch, with scores in f32. On short sequences in bf16 on a
/// CPU libtorch's fused kernel calls oneDNN for each head of each sample, and each call takes microseconds
/// before it multiplies: for 17 positions four times as long as this, forward and backward.
fn attend_all_heads(q: &Tensor, k: &Tensor, v: &Tensor, mask: &AttentionMask, dropout: &Dropout) -> Tensor {
    let scale = (q.size()[3] as f64).sqrt().recip();
    // Scores rounded to bf16 would have three times the error of the fused kernel.
    let weights = mm_sys::without_autocast(q.device(), || {
        let scores = (q.to_kind(Kind::Float) * scale).matmul(&k.to_kind(Kind::Float).transpose(-2, -1));
        mask.apply(scores).softmax(-1, None).to_kind(v.kind())
    });
    dropout.forward(weights).matmul(v)
}

/// `[B, L, heads * head]` to `[B, heads, L, head]`.
pub(super) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (batch, length, width) = x.size3().expect("attention input is [B, L, width]");
    x.view([batch, length, heads, width / heads]).transpose(1, 2)
}

/// `[B, heads, L, head]` to `[B, L, heads * head]`.
pub(super) fn merge_heads(x: &Tensor) -> Tensor {
    let (batch, heads, length, head) = x.size4().expect("heads are [B, heads, L, head]");
    x.transpose(1, 2).reshape([batch, length, heads * head])
}
