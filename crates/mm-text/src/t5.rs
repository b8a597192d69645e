//! T5's encoder, the third text encoder of Stable Diffusion 3.

use crate::{Error, Result};
use mm_core::Precision;
use mm_core::hf::{check_eps, check_layers, check_sizes};
use mm_core::nn::{Activation, Attention, AttentionMask, Embedding, Linear, Mlp, RmsNorm};
use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Device, Kind, Tensor};

/// The form of the MLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum T5FeedForward {
    /// Two layers with a ReLU between, as in the first T5.
    #[default]
    Relu,
    /// One of two projections, through GELU, gates the other (Shazeer 2020), as in T5 1.1.
    GatedGelu,
}

/// The sizes of a T5 encoder, named as in a Hugging Face `config.json`. Defaults are transformers'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct T5Config {
    /// Rows of the word embedding.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub d_model: i64,
    /// Width of a head; times `num_heads` it is `d_model`.
    pub d_kv: i64,
    /// Width between the MLP's layers.
    pub d_ff: i64,
    /// Number of blocks.
    pub num_layers: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Classes of the distance of two tokens, half of them for each direction; a multiple of 4.
    pub relative_attention_num_buckets: i64,
    /// The distance from which all are one class.
    pub relative_attention_max_distance: i64,
    /// Epsilon of the norms.
    pub layer_norm_epsilon: f64,
    /// The form of the MLP.
    pub feed_forward_proj: T5FeedForward,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: T5FeedForward::Relu,
        }
    }
}

impl T5Config {
    /// Checks that an encoder can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        self.problem().map_err(|problem| Error::Config(format!("T5 config: {problem}")))
    }

    fn problem(&self) -> std::result::Result<(), String> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_heads", self.num_heads),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
        ])?;
        check_layers("num_layers", self.num_layers)?;
        check_eps(self.layer_norm_epsilon)?;
        let (width, heads, head) = (self.d_model, self.num_heads, self.d_kv);
        if heads * head != width {
            return Err(format!("d_model is {width}: only num_heads {heads} times d_kv {head} is offered"));
        }
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if buckets % 4 != 0 || distance <= buckets / 4 {
            return Err(format!(
                "relative_attention_num_buckets is {buckets}: it must be a multiple of 4, and a quarter of \
                 it smaller than relative_attention_max_distance {distance}"
            ));
        }
        Ok(())
    }
}

/// T5's encoder (Raffel et al. 2020, section 2.1): tokens attend to each other by content and distance.
#[derive(Debug)]
pub struct T5Encoder {
    shared: Embedding,
    relative_attention_bias: Embedding,
    blocks: Vec<Block>,
    final_layer_norm: RmsNorm,
    buckets: i64,
    max_distance: i64,
}

/// The bias of hidden keys. It is not infinite, so that a text without any token is no NaN, and large enough
/// that the softmax of any other score is 0 beside it.
const HIDDEN: f64 = -1e30;

impl T5Encoder {
    /// Creates the encoder's parameters below `path`: matrices keep the variance of their inputs.
    ///
    /// # Errors
    /// As [`T5Config::validate`].
    pub fn new(path: &Path, config: &T5Config) -> Result<Self> {
        config.validate()?;
        let encoder = path / "encoder";
        let blocks = &encoder / "block";
        let attention = &blocks / 0 / "layer" / 0 / "SelfAttention";
        let (buckets, width) = (config.relative_attention_num_buckets, config.d_model);
        Ok(Self {
            shared: Embedding::new(&(path / "shared"), config.vocab_size, width, 1.0),
            // In the first block's attention, for all blocks.
            relative_attention_bias: Embedding::new(
                &(attention / "relative_attention_bias"),
                buckets,
                config.num_heads,
                (width as f64).powf(-0.5),
            ),
            blocks: (0..config.num_layers).map(|index| Block::new(&(&blocks / index), config)).collect(),
            final_layer_norm: RmsNorm::new(
                &(&encoder / "final_layer_norm"),
                width,
                config.layer_norm_epsilon,
            ),
            buckets,
            max_distance: config.relative_attention_max_distance,
        })
    }

    /// Maps `input_ids` `[B, L]` to states `[B, L, d_model]`, in the weights' type. `attention_mask` `[B, L]`
    /// is 0 for padding; without it, as in the pipeline of Stable Diffusion 3, tokens attend to padding.
    pub fn forward(&self, input_ids: &Tensor, attention_mask: Option<&Tensor>) -> Tensor {
        let mut x = self.shared.forward(input_ids);
        let mut bias = self.position_bias(input_ids.size()[1], x.device());
        if let Some(mask) = attention_mask {
            let hidden = mask.eq(0).unsqueeze(1).unsqueeze(1); // [B, 1, 1, L]
            bias = bias.masked_fill(&hidden, HIDDEN);
        }
        let mask = AttentionMask::none().with_bias(bias);
        for block in &self.blocks {
            x = block.forward(&x, &mask);
        }
        self.final_layer_norm.forward(&x)
    }

    /// What the distance of each pair of positions adds to its score, `[1, heads, L, L]`.
    fn position_bias(&self, length: i64, device: Device) -> Tensor {
        let positions = Tensor::arange(length, (Kind::Int64, device));
        let distance = positions.unsqueeze(0) - positions.unsqueeze(1); // of the key from the query
        let buckets = buckets(&distance, self.buckets, self.max_distance);
        self.relative_attention_bias.forward(&buckets).permute([2, 0, 1]).unsqueeze(0)
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.shared.pack(precision);
        self.relative_attention_bias.pack(precision);
        self.blocks.iter_mut().for_each(|block| block.pack(precision));
        self.final_layer_norm.pack(precision);
    }
}

/// The classes of `distance` (i64), of any shape: half of `count` for each direction, of which half are the
/// shortest distances one by one, and half are ever wider ranges up to `max_distance`.
fn buckets(distance: &Tensor, count: i64, max_distance: i64) -> Tensor {
    let direction = count / 2;
    let exact = direction / 2;
    let far = distance.abs();
    // In f32, as T5's own code: at the edges of ranges a more precise logarithm gives other classes.
    let logarithms = (far.to_kind(Kind::Float) / exact as f64).log();
    let ranges = logarithms / (max_distance as f64 / exact as f64).ln() * (direction - exact) as f64;
    let wide = (ranges.clamp_min(0.0).to_kind(Kind::Int64) + exact).clamp_max(direction - 1);
    far.where_self(&far.lt(exact), &wide) + distance.gt(0).to_kind(Kind::Int64) * direction
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    /// The square root of the square root of a head's width.
    attention_scale: f64,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn new(path: &Path, config: &T5Config) -> Self {
        let (width, head, eps) = (config.d_model, config.d_kv as f64, config.layer_norm_epsilon);
        let (first, second) = (path / "layer" / 0, path / "layer" / 1);
        let attention = &first / "SelfAttention";
        let std = (width as f64).powf(-0.5);
        let in_proj = Linear::without_bias(&(&attention / "qkv"), width, 3 * width, std);
        let out_proj = Linear::without_bias(&(&attention / "o"), width, width, std);
        Self {
            attention_norm: RmsNorm::new(&(&first / "layer_norm"), width, eps),
            attention: Attention::new(in_proj, out_proj, config.num_heads),
            attention_scale: head.sqrt().sqrt(),
            feed_forward_norm: RmsNorm::new(&(&second / "layer_norm"), width, eps),
            feed_forward: FeedForward::new(&(&second / "DenseReluDense"), config),
        }
    }

    fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Tensor {
        // T5 does not divide scores by the root of a head's width. No layer has a bias, so an input that is
        // larger by the root of that makes queries and keys larger by it, and the output, which is divided
        // again.
        let normalized = self.attention_norm.forward(x) * self.attention_scale;
        let x = x + self.attention.forward(&normalized, mask) / self.attention_scale;
        let feed_forward = self.feed_forward.forward(&self.feed_forward_norm.forward(&x));
        x + feed_forward
    }

    fn pack(&mut self, precision: Precision) {
        self.attention_norm.pack(precision);
        self.attention.pack(precision);
        self.feed_forward_norm.pack(precision);
        self.feed_forward.pack(precision);
    }
}

#[derive(Debug)]
enum FeedForward {
    Relu(Mlp),
    /// `wi` is the gate's rows, then those that it gates.
    GatedGelu {
        wi: Linear,
        wo: Linear,
    },
}

impl FeedForward {
    fn new(path: &Path, config: &T5Config) -> Self {
        let (width, hidden) = (config.d_model, config.d_ff);
        let linear = |name: &str, input: i64, output| {
            Linear::without_bias(&(path / name), input, output, (input as f64).powf(-0.5))
        };
        let wo = linear("wo", hidden, width);
        match config.feed_forward_proj {
            T5FeedForward::Relu => Self::Relu(Mlp::new(linear("wi", width, hidden), wo, Activation::Relu)),
            T5FeedForward::GatedGelu => Self::GatedGelu { wi: linear("wi_gated", width, 2 * hidden), wo },
        }
    }

    /// Maps `x` `[B, L, d_model]` to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Relu(mlp) => mlp.forward(x),
            Self::GatedGelu { wi, wo } => {
                let halves = wi.forward(x).chunk(2, -1);
                wo.forward(&(Activation::GeluPytorchTanh.forward(&halves[0]) * &halves[1]))
            }
        }
    }

    fn pack(&mut self, precision: Precision) {
        match self {
            Self::Relu(mlp) => mlp.pack(precision),
            Self::GatedGelu { wi, wo } => {
                wi.pack(precision);
                wo.pack(precision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_classes_of_their_own_and_far_ones_share() {
        // 16 classes a direction: 0 to 7 one by one, then 8 ranges up to 128, each 2^(1/2) times as wide.
        let distances = [0, 1, 7, 8, 11, 12, 16, 64, 127, 128, 1000];
        let expected = [0, 1, 7, 8, 8, 9, 10, 14, 15, 15, 15];
        let signed = |sign: i64| Tensor::from_slice(&distances.map(|distance| sign * distance));
        assert_eq!(buckets(&signed(-1), 32, 128), Tensor::from_slice(&expected));
        let after = expected.map(|class| if class == 0 { 0 } else { class + 16 });
        assert_eq!(buckets(&signed(1), 32, 128), Tensor::from_slice(&after));
    }
}
