//! Attention of patches and text to each other, and of patches to themselves.

use super::{EPS, Sd3Config, xavier};
use mm_core::Precision;
use mm_core::nn::{Linear, RmsNorm};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// What the attention layers of a model share in one pass.
#[derive(Default)]
pub(super) struct AttentionContext<'a> {
    /// `[B, 1, 1, N + L]`, added to the scores: -inf where a text token is hidden.
    pub bias: Option<&'a Tensor>,
    /// Where each joint attention puts the weights `[B, heads, N, L]` of patches over text.
    pub weights: Option<&'a mut Vec<Tensor>>,
}

/// Queries, keys and values of one stream.
#[derive(Debug)]
struct Projection {
    qkv: Linear,
    norm_qk: Option<RmsNorm>,
    heads: i64,
}

impl Projection {
    /// `qkv` and `norm_qk` are the names of the layers below `path`.
    fn new(path: &Path, qkv: &str, norm_qk: &str, config: &Sd3Config) -> Self {
        let (width, head) = (config.width(), config.attention_head_dim);
        let norm = |_| RmsNorm::stacked(&(path / norm_qk), 2, head, EPS);
        Self {
            qkv: Linear::new(&(path / qkv), width, 3 * width, xavier(width, width)),
            norm_qk: config.qk_norm.map(norm),
            heads: config.num_attention_heads,
        }
    }

    /// Maps `x` `[B, L, width]` to `[B, L, 3, heads, head]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (batch, length, width) = x.size3().expect("a stream is [B, L, width]");
        let qkv = self.qkv.forward(x).view([batch, length, 3, self.heads, width / self.heads]);
        match &self.norm_qk {
            None => qkv,
            Some(norm) => {
                let parts = qkv.split_with_sizes([2, 1], 2);
                Tensor::cat(&[&norm.forward(&parts[0]), &parts[1]], 2)
            }
        }
    }

    fn pack(&mut self, precision: Precision) {
        self.qkv.pack(precision);
        self.norm_qk.iter_mut().for_each(|norm| norm.pack(precision));
    }
}

/// Attention of the patches to themselves.
#[derive(Debug)]
pub(super) struct SelfAttention {
    projection: Projection,
    to_out: Linear,
}

impl SelfAttention {
    pub fn new(path: &Path, config: &Sd3Config) -> Self {
        Self {
            projection: Projection::new(path, "to_qkv", "norm_qk", config),
            to_out: out(&(path / "to_out" / "0"), config.width()),
        }
    }

    /// Maps `x` `[B, N, width]` to the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let qkv = self.projection.forward(x).unbind(2);
        self.to_out.forward(&attend(&qkv, x.size()[1], None))
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.projection.pack(precision);
        self.to_out.pack(precision);
    }
}

/// Attention of patches and text over both.
#[derive(Debug)]
pub(super) struct JointAttention {
    image: Projection,
    text: Projection,
    to_out: Linear,
    /// None in the last block, behind which the text is not read.
    to_add_out: Option<Linear>,
}

impl JointAttention {
    pub fn new(path: &Path, config: &Sd3Config, is_last: bool) -> Self {
        let width = config.width();
        Self {
            image: Projection::new(path, "to_qkv", "norm_qk", config),
            text: Projection::new(path, "add_qkv_proj", "norm_added_qk", config),
            to_out: out(&(path / "to_out" / "0"), width),
            to_add_out: (!is_last).then(|| out(&(path / "to_add_out"), width)),
        }
    }

    /// Maps `image` `[B, N, width]` and `text` `[B, L, width]` to the same shapes; the last block gives no
    /// text.
    pub fn forward(
        &self,
        image: &Tensor,
        text: &Tensor,
        context: &mut AttentionContext,
    ) -> (Tensor, Option<Tensor>) {
        let (patches, tokens) = (image.size()[1], text.size()[1]);
        let qkv = Tensor::cat(&[self.image.forward(image), self.text.forward(text)], 1).unbind(2);
        if let Some(weights) = &mut context.weights {
            weights.push(weights_of(&qkv, patches, context.bias).narrow(3, patches, tokens));
        }
        let Some(to_add_out) = &self.to_add_out else {
            return (self.to_out.forward(&attend(&qkv, patches, context.bias)), None);
        };
        let attended = attend(&qkv, patches + tokens, context.bias).split_with_sizes([patches, tokens], 1);
        (self.to_out.forward(&attended[0]), Some(to_add_out.forward(&attended[1])))
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.image.pack(precision);
        self.text.pack(precision);
        self.to_out.pack(precision);
        self.to_add_out.iter_mut().for_each(|linear| linear.pack(precision));
    }
}

fn out(path: &Path, width: i64) -> Linear {
    Linear::new(path, width, width, xavier(width, width))
}

/// Attention of the first `queries` positions of `qkv`, each `[B, S, heads, head]`, over all:
/// `[B, queries, heads * head]`.
fn attend(qkv: &[Tensor], queries: i64, bias: Option<&Tensor>) -> Tensor {
    let q = qkv[0].narrow(1, 0, queries).transpose(1, 2); // [B, heads, queries, head]
    let (k, v) = (qkv[1].transpose(1, 2), qkv[2].transpose(1, 2));
    let bias = bias.map(|bias| bias.to_kind(q.kind()));
    let attended = Tensor::scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, None, false);
    attended.transpose(1, 2).flatten(2, 3)
}

/// The weights `[B, heads, queries, S]` of [`attend`], in f32.
fn weights_of(qkv: &[Tensor], queries: i64, bias: Option<&Tensor>) -> Tensor {
    let heads = |x: &Tensor| x.transpose(1, 2).to_kind(Kind::Float);
    let (q, k) = (heads(&qkv[0].narrow(1, 0, queries)), heads(&qkv[1]));
    let scores = q.matmul(&k.transpose(2, 3)) / (q.size()[3] as f64).sqrt();
    let scores = bias.map_or_else(|| scores.shallow_clone(), |bias| &scores + bias);
    scores.softmax(-1, Kind::Float)
}
