use super::Linear;
use crate::Precision;
use tch::nn::Path;
use tch::{Device, Kind, Tensor};

/// Which positions a query may see.
#[derive(Debug)]
pub enum AttentionMask {
    /// All of them.
    None,
    /// Itself and those before it.
    Causal,
    /// As an additive mask says, broadcast to `[B, heads, L, L]`: 0 where seen, -inf where not.
    Additive(Tensor),
}

impl AttentionMask {
    /// The mask of an `attention_mask` `[B, L]` (1 for tokens, 0 for padding), for activations of type
    /// `kind`.
    pub fn padding(attention_mask: &Tensor, kind: Kind) -> Self {
        let hidden = attention_mask.unsqueeze(1).unsqueeze(1).eq(0); // [B, 1, 1, L]
        Self::Additive(hidden.zeros_like().to_kind(kind).masked_fill(&hidden, f64::NEG_INFINITY))
    }

    /// Scores `[B, heads, L, L]`, -inf where a position is hidden.
    fn apply(&self, scores: Tensor) -> Tensor {
        match self {
            Self::None => scores,
            Self::Additive(mask) => scores + mask,
            Self::Causal => {
                let length = scores.size()[3];
                let later = Tensor::ones([length, length], (Kind::Bool, scores.device())).triu(1);
                scores.masked_fill(&later, f64::NEG_INFINITY)
            }
        }
    }

    /// The same mask, in the same memory.
    pub(super) fn shallow_clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Causal => Self::Causal,
            Self::Additive(mask) => Self::Additive(mask.shallow_clone()),
        }
    }
}

/// Multi-head self-attention (Vaswani et al. 2017, section 3.2) with the three projections in one product:
/// `in_proj` `[3 width, width]` (rows of q, then k, then v) and `out_proj` `[width, width]`.
#[derive(Debug)]
pub struct Attention {
    in_proj: Linear,
    out_proj: Linear,
    heads: i64,
}

impl Attention {
    /// Creates `in_proj` (standard deviation `in_std`) and `out_proj` (`out_std`) below `path`. `width` is a
    /// multiple of `heads`.
    pub fn new(path: &Path, width: i64, heads: i64, in_std: f64, out_std: f64) -> Self {
        let in_proj = Linear::new(&(path / "in_proj"), width, 3 * width, in_std);
        let out_proj = Linear::new(&(path / "out_proj"), width, width, out_std);
        Self { in_proj, out_proj, heads }
    }

    /// Uses projections made elsewhere, for checkpoints that name them otherwise.
    pub fn from_parts(in_proj: Linear, out_proj: Linear, heads: i64) -> Self {
        Self { in_proj, out_proj, heads }
    }

    /// Maps `x` `[B, L, width]` to the same shape.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Tensor {
        let (q, k, v) = self.project(x);
        self.out_proj.forward(&merge_heads(&attend(&q, &k, &v, mask)))
    }

    /// [`Attention::forward`] at one position a row, `positions` `[B]` (i64): `[B, width]`.
    pub(super) fn forward_at(&self, x: &Tensor, mask: &AttentionMask, positions: &Tensor) -> Tensor {
        let (q, k, v) = self.project(x);
        self.out_proj.forward(&take_positions(&merge_heads(&attend(&q, &k, &v, mask)), positions))
    }

    /// As [`Attention::forward`], also giving the attention weights `[B, heads, L, L]`, which are part of the
    /// graph. Slower: for looking at a model, not for training it.
    pub fn forward_with_weights(&self, x: &Tensor, mask: &AttentionMask) -> (Tensor, Tensor) {
        let (q, k, v) = self.project(x);
        let scores = q.matmul(&k.transpose(-2, -1)) / (q.size()[3] as f64).sqrt();
        let weights = mask.apply(scores).softmax(-1, None);
        (self.out_proj.forward(&merge_heads(&weights.matmul(&v))), weights)
    }

    /// `x` `[B, L, width]` to q, k and v, each a view `[B, heads, L, width / heads]` into one tensor.
    fn project(&self, x: &Tensor) -> (Tensor, Tensor, Tensor) {
        let (batch, length, width) = x.size3().expect("attention input is [B, L, width]");
        let qkv =
            // [3, B, heads, L, width / heads]
            self.in_proj.forward(x).view([batch, length, 3, self.heads, width / self.heads]).permute([2, 0, 3, 1, 4]);
        (qkv.get(0), qkv.get(1), qkv.get(2))
    }

    /// Readies for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.in_proj.pack(precision);
        self.out_proj.pack(precision);
    }
}

/// The longest sequence that [`attend_all_heads`] is faster for, forward and backward, than libtorch's fused
/// kernel.
const SHORT: i64 = 128;

fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &AttentionMask) -> Tensor {
    if q.kind() == Kind::BFloat16 && q.device() == Device::Cpu && q.size()[2] <= SHORT {
        return attend_all_heads(q, k, v, mask);
    }
    let (mask, causal) = match mask {
        AttentionMask::None => (None, false),
        AttentionMask::Causal => (None, true),
        AttentionMask::Additive(mask) => (Some(mask), false),
    };
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, None, false)
}

/// Attention as two products over all heads of the batch, with scores in f32. In bf16 on a CPU libtorch's
/// fused kernel calls oneDNN for each head of each sample, and each call takes microseconds before it
/// multiplies: for 17 positions four times as long as this, forward and backward.
fn attend_all_heads(q: &Tensor, k: &Tensor, v: &Tensor, mask: &AttentionMask) -> Tensor {
    let scale = (q.size()[3] as f64).sqrt().recip();
    // Scores rounded to bf16 would have three times the error of the fused kernel.
    let weights = mm_sys::without_autocast(q.device(), || {
        let scores = (q.to_kind(Kind::Float) * scale).matmul(&k.to_kind(Kind::Float).transpose(-2, -1));
        mask.apply(scores).softmax(-1, None).to_kind(v.kind())
    });
    weights.matmul(v)
}

/// `[B, heads, L, head]` to `[B, L, heads * head]`.
fn merge_heads(x: &Tensor) -> Tensor {
    let (batch, heads, length, head) = x.size4().expect("heads are [B, heads, L, head]");
    x.transpose(1, 2).reshape([batch, length, heads * head])
}

/// From `x` `[B, L, D]`, the vectors `[B, D]` at `positions` `[B]` (i64).
pub(super) fn take_positions(x: &Tensor, positions: &Tensor) -> Tensor {
    let (batch, length, width) = x.size3().expect("activations are [B, L, D]");
    let rows = Tensor::arange(batch, (Kind::Int64, x.device())) * length + positions;
    x.reshape([batch * length, width]).index_select(0, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{initialize, normal};
    use tch::nn::VarStore;

    /// The relative distance of `x` to `exact`.
    fn error(x: &Tensor, exact: &Tensor) -> f64 {
        ((x - exact).norm() / exact.norm()).double_value(&[])
    }

    #[test]
    fn attention_over_all_heads_in_bf16_differs_from_f32_by_the_rounding_of_bf16() {
        let seen = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]).view([2, 6]);
        let run = |kind: Kind, mask: &AttentionMask| {
            let rounded = |seed| normal(seed, &[2, 3, 6, 16]).to_kind(Kind::BFloat16).to_kind(kind);
            let [q, k, v] = [1, 2, 3].map(|seed| rounded(seed).set_requires_grad(true));
            let y = attend(&q, &k, &v, mask);
            (&y * rounded(4)).sum(Kind::Float).backward();
            let gradients = [q, k, v].map(|x| x.grad().to_kind(Kind::Float));
            (y.detach().to_kind(Kind::Float), Tensor::cat(&gradients, 0))
        };
        for mask in [AttentionMask::None, AttentionMask::Causal, AttentionMask::padding(&seen, Kind::Float)] {
            let exact = run(Kind::Float, &mask);
            let bf16 = mm_sys::autocast_bf16(Device::Cpu, || run(Kind::BFloat16, &mask));
            for (what, found, exact) in [("output", &bf16.0, &exact.0), ("gradients", &bf16.1, &exact.1)] {
                let error = error(found, exact);
                assert!(
                    error < 0.008,
                    "{mask:?}: the error of {what} is {error}, twice bf16's step is 0.008"
                );
            }
        }
    }

    #[test]
    fn attention_with_weights_equals_attention_under_every_mask() {
        let vs = VarStore::new(Device::Cpu);
        let attention = Attention::new(&vs.root(), 16, 4, 0.3, 0.3);
        initialize(&vs, 2);
        let x = normal(3, &[3, 6, 16]);
        let seen =
            Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]).view([3, 6]);
        for mask in [AttentionMask::None, AttentionMask::Causal, AttentionMask::padding(&seen, Kind::Float)] {
            let (y, weights) = attention.forward_with_weights(&x, &mask);
            let difference = (attention.forward(&x, &mask) - y).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "{mask:?} differs by {difference}");
            let sums = weights.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
            assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5, "{mask:?}: weights do not sum to 1");
        }
    }
}
