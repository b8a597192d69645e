//! A transformer block of an encoder or a decoder.

use super::attention::{KeyValues, LayerCache, take_positions};
use super::block_config::layer_path;
use super::feed_forward::FeedForward;
use super::{
    Attention, AttentionMask, BlockConfig, BlockNames, Dropout, LayerNorm, Linear, Norm, NormKind, NormOrder,
    RmsNorm,
};
use crate::Precision;
use std::cell::RefCell;
use tch::Tensor;
use tch::nn::Path;

/// The states that cross-attention reads, such as an image's features.
#[derive(Debug)]
pub struct Context {
    /// `[G, S, context_width]`. A batch of B rows, a multiple of G, reads them in order: the first `B / G`
    /// rows the first context, and so on.
    pub states: Tensor,
    /// Hides padding among the S states. It is not causal.
    pub mask: AttentionMask,
}

impl Context {
    /// The contexts `rows` `[G']` (i64), any number of times and in any order: for a batch whose rows are not
    /// evenly spread over its contexts.
    pub fn index_select(&self, rows: &Tensor) -> Self {
        Self { states: self.states.index_select(0, rows), mask: self.mask.index_select(rows) }
    }

    /// The same context, with its mask in the form that attention computes with: one row, for any number of
    /// queries.
    pub(super) fn prepared(&self) -> Self {
        let mask = self.mask.prepared(1, self.states.size()[1], self.states.device());
        Self { states: self.states.shallow_clone(), mask }
    }

    /// The same context, in the same memory.
    pub(super) fn shallow_clone(&self) -> Self {
        Self { states: self.states.shallow_clone(), mask: self.mask.shallow_clone() }
    }
}

/// What a block keeps from one step of decoding to the next.
#[derive(Debug)]
pub(super) struct BlockCache {
    /// Of self-attention.
    pub positions: LayerCache,
    /// Of cross-attention.
    pub context: Option<KeyValues>,
}

/// A transformer block: self-attention, cross-attention where the config has a context, and an MLP, each with
/// a residual connection and a norm.
#[derive(Debug)]
pub struct Block {
    attention: Attention,
    attention_norm: Norm,
    cross_attention: Option<(Attention, Norm)>,
    mlp: FeedForward,
    mlp_norm: Norm,
    norm_order: NormOrder,
    /// Of what each sub-layer adds.
    dropout: Dropout,
}

impl Block {
    /// Creates the block's parameters below `path` under the `names` of its family.
    pub fn new(path: &Path, config: &BlockConfig, names: &BlockNames) -> Self {
        let (width, heads, std) = (config.width, config.heads, config.init_std());
        let linear = |name: &str, input: i64, output: i64, std: f64| {
            Linear::new(&layer_path(path, name), input, output, std)
        };
        let norm = |name: &str| {
            let (path, eps) = (layer_path(path, name), config.layer_norm_eps);
            match config.norm {
                NormKind::Layer => Norm::Layer(LayerNorm::new(&path, width, eps)),
                NormKind::Rms => Norm::Rms(RmsNorm::new(&path, width, eps)),
            }
        };
        // libtorch draws the initial weights in the order of creation, which must stay as it is.
        let attention = self_attention(path, config, names).with_dropout(config.dropout);
        let cross_attention = config.context_width.map(|context_width| {
            let names = &names.cross_attention;
            let q_proj = linear(names.q_proj, width, width, std.attention_in);
            let kv_proj = linear(names.kv_proj, context_width, 2 * width, std.attention_in);
            let out_proj = linear(names.out_proj, width, width, std.out);
            let attention = Attention::cross(q_proj, kv_proj, out_proj, heads).with_dropout(config.dropout);
            (attention, norm(names.norm))
        });
        let mlp = FeedForward::new(path, config, names);
        Self {
            attention,
            attention_norm: norm(names.attention_norm),
            cross_attention,
            mlp,
            mlp_norm: norm(names.mlp_norm),
            norm_order: config.norm_order,
            dropout: Dropout::new(config.dropout),
        }
    }

    /// Maps `x` `[B, L, width]` to the same shape. `context` is given if the block has cross-attention.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask, context: Option<&Context>) -> Tensor {
        self.run(x, x, |x| self.attention.forward(x, mask), &|cross, x| cross_attend(cross, x, context))
    }

    /// [`Block::forward`] at one position a row, `positions` `[B]` (i64): `[B, width]`.
    pub(super) fn forward_at(
        &self,
        x: &Tensor,
        mask: &AttentionMask,
        context: Option<&Context>,
        positions: &Tensor,
    ) -> Tensor {
        let attend = |x: &Tensor| self.attention.forward_at(x, mask, positions);
        self.run(x, &take_positions(x, positions), attend, &|cross, x| {
            cross_attend(cross, &x.unsqueeze(1), context).squeeze_dim(1)
        })
    }

    /// [`Block::forward`] at the positions after those in `cache`, which it appends. `mask` covers all of
    /// them; `context_mask` is that of the context in `cache`.
    pub(super) fn forward_cached(
        &self,
        x: &Tensor,
        mask: &AttentionMask,
        context_mask: &AttentionMask,
        cache: &mut BlockCache,
    ) -> Tensor {
        let BlockCache { positions, context } = cache;
        self.run(x, x, |x| self.attention.forward_cached(x, mask, positions), &|cross, x| {
            let context = context.as_ref().expect("a block with cross-attention is given a context");
            cross.forward_projected(x, context, context_mask)
        })
    }

    /// An empty cache for `max_length` positions, with the keys and values of `context`.
    pub(super) fn new_cache(&self, max_length: i64, context: Option<&Context>) -> BlockCache {
        let cross = self.cross_attention.as_ref().zip(context);
        let context =
            cross.map(|((attention, _), context)| attention.project_context(&context.states).for_decoding());
        BlockCache { positions: LayerCache::new(max_length), context }
    }

    /// As [`Block::forward`], also giving the self-attention weights `[B, heads, L, L]`.
    pub fn forward_with_weights(
        &self,
        x: &Tensor,
        mask: &AttentionMask,
        context: Option<&Context>,
    ) -> (Tensor, Tensor) {
        let mut weights = None;
        let attend = |x: &Tensor| {
            let (y, attention) = self.attention.forward_with_weights(x, mask);
            weights = Some(attention);
            y
        };
        let y = self.run(x, x, attend, &|cross, x| cross_attend(cross, x, context));
        (y, weights.expect("a block attends once"))
    }

    /// As [`Block::forward`], also giving the cross-attention weights `[B, heads, L, S]`.
    pub(super) fn forward_with_context_weights(
        &self,
        x: &Tensor,
        mask: &AttentionMask,
        context: &Context,
    ) -> (Tensor, Tensor) {
        let weights = RefCell::new(None);
        let y = self.run(x, x, |x| self.attention.forward(x, mask), &|cross, x| {
            let (y, attention) = cross.forward_context_with_weights(x, &context.states, &context.mask);
            weights.replace(Some(attention));
            y
        });
        (y, weights.take().expect("the block has cross-attention"))
    }

    /// Runs the sub-layers on `x`; `residual` is `x` at the positions for which `attend` gives its output.
    fn run(
        &self,
        x: &Tensor,
        residual: &Tensor,
        attend: impl FnOnce(&Tensor) -> Tensor,
        cross_attend: &dyn Fn(&Attention, &Tensor) -> Tensor,
    ) -> Tensor {
        let drop = |x: Tensor| self.dropout.forward(x);
        match self.norm_order {
            NormOrder::Pre => {
                let mut x = residual + drop(attend(&self.attention_norm.forward(x)));
                if let Some((cross, norm)) = &self.cross_attention {
                    x = &x + drop(cross_attend(cross, &norm.forward(&x)));
                }
                &x + drop(self.mlp.forward(&self.mlp_norm.forward(&x)))
            }
            NormOrder::Post => {
                let mut x = self.attention_norm.forward(&(residual + drop(attend(x))));
                if let Some((cross, norm)) = &self.cross_attention {
                    x = norm.forward(&(&x + drop(cross_attend(cross, &x))));
                }
                self.mlp_norm.forward(&(&x + drop(self.mlp.forward(&x))))
            }
        }
    }

    /// Turns dropout on or off.
    pub fn set_training(&self, on: bool) {
        self.attention.set_training(on);
        if let Some((attention, _)) = &self.cross_attention {
            attention.set_training(on);
        }
        self.mlp.set_training(on);
        self.dropout.set_training(on);
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.attention.pack(precision);
        self.attention_norm.pack(precision);
        if let Some((attention, norm)) = &mut self.cross_attention {
            attention.pack(precision);
            norm.pack(precision);
        }
        self.mlp.pack(precision);
        self.mlp_norm.pack(precision);
    }
}

/// The self-attention of a block.
fn self_attention(path: &Path, config: &BlockConfig, names: &BlockNames) -> Attention {
    let (width, heads, std) = (config.width, config.heads, config.init_std());
    let linear = |name: &str, input: i64, output: i64, std: f64, bias: bool| {
        let path = layer_path(path, name);
        if bias {
            Linear::new(&path, input, output, std)
        } else {
            Linear::without_bias(&path, input, output, std)
        }
    };
    let Some(grouped) = &config.grouped else {
        let in_proj = linear(names.in_proj, width, 3 * width, std.attention_in, true);
        return Attention::new(in_proj, linear(names.out_proj, width, width, std.out, true), heads);
    };
    let (q_width, kv_width) = (heads * grouped.head_width, 2 * grouped.kv_heads * grouped.head_width);
    let q_proj = linear(names.q_proj, width, q_width, std.attention_in, grouped.in_bias);
    let kv_proj = linear(names.kv_proj, width, kv_width, std.attention_in, grouped.in_bias);
    let out_proj = linear(names.out_proj, q_width, width, std.out, grouped.out_bias);
    Attention::grouped(q_proj, kv_proj, out_proj, heads, grouped.kv_heads)
}

/// Cross-attention of `x` `[B, L, width]` over `context`.
fn cross_attend(attention: &Attention, x: &Tensor, context: Option<&Context>) -> Tensor {
    let Context { states, mask } = context.expect("a block with cross-attention is given a context");
    attention.forward_context(x, states, mask)
}
