//! Transformer blocks over the positions of an image.

use super::Conditions;
use mm_core::Precision;
use mm_core::nn::{
    Attention, AttentionMask, Conv2d, Conv2dConfig, GroupNorm, KeyValues, LayerNorm, Linear, channels_last,
};
use tch::Tensor;
use tch::nn::Path;

/// Epsilon of the norms inside a transformer; that of its group norm is 1e-6.
const LAYER_NORM_EPS: f64 = 1e-5;
const GROUP_NORM_EPS: f64 = 1e-6;

/// The sizes of a [`SpatialTransformer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpatialTransformerConfig {
    pub channels: i64,
    pub heads: i64,
    /// Blocks.
    pub layers: i64,
    /// Width of the text's states.
    pub context_width: i64,
    pub groups: i64,
    /// Whether the projections are linear layers instead of 1 x 1 convolutions.
    pub linear_projection: bool,
}

/// Self-attention, cross-attention to the text and a feed-forward layer over the positions of an image, added
/// to it (Rombach et al. 2022, section 3.3).
#[derive(Debug)]
pub(crate) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

impl SpatialTransformer {
    pub(crate) fn new(path: &Path, config: SpatialTransformerConfig) -> Self {
        let SpatialTransformerConfig { channels, layers, linear_projection, .. } = config;
        let projection = |name: &str| Projection::new(&(path / name), channels, linear_projection);
        let blocks = path / "transformer_blocks";
        Self {
            norm: GroupNorm::new(&(path / "norm"), config.groups, channels, GROUP_NORM_EPS),
            proj_in: projection("proj_in"),
            transformer_blocks: (0..layers).map(|i| TransformerBlock::new(&(&blocks / i), config)).collect(),
            proj_out: projection("proj_out"),
        }
    }

    /// Maps `x` `[B, C, H, W]` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor, conditions: &mut Conditions) -> Tensor {
        let (batch, channels, height, width) = x.size4().expect("an image is [B, C, H, W]");
        let rows = self.proj_in.forward(&to_rows(&self.norm.forward(x))); // [B, H * W, C]
        let rows = self.transformer_blocks.iter().fold(rows, |rows, block| block.forward(rows, conditions));
        let rows = self.proj_out.forward(&rows) + to_rows(x);
        rows.view([batch, height, width, channels]).permute([0, 3, 1, 2])
    }

    /// The keys and values of the text's states `[G, L, context_width]` for each block.
    pub(crate) fn project_text(&self, states: &Tensor) -> impl Iterator<Item = KeyValues> {
        self.transformer_blocks.iter().map(|block| block.attn2.project_context(states))
    }

    /// Prepares for inference in `precision`.
    pub(crate) fn pack(&mut self, precision: Precision) {
        self.norm.pack();
        self.proj_in.pack(precision);
        self.transformer_blocks.iter_mut().for_each(|block| block.pack(precision));
        self.proj_out.pack(precision);
    }
}

/// `[B, C, H, W]` to `[B, H * W, C]`, a view of a channels-last image.
pub(crate) fn to_rows(x: &Tensor) -> Tensor {
    channels_last(x).flatten(2, 3).transpose(1, 2)
}

/// A linear map of channels, stored as a linear layer or as a 1 x 1 convolution.
#[derive(Debug)]
pub(crate) enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Projection {
    fn new(path: &Path, channels: i64, linear: bool) -> Self {
        match linear {
            true => Self::Linear(Linear::new(path, channels, channels, (channels as f64).powf(-0.5))),
            false => Self::Conv(Conv2d::new(path, Conv2dConfig::same(channels, channels, 1))),
        }
    }

    /// Maps rows `[B, N, C]` to the same shape.
    fn forward(&self, rows: &Tensor) -> Tensor {
        match self {
            Self::Linear(linear) => linear.forward(rows),
            // [B, C, N, 1], channels-last
            Self::Conv(conv) => {
                let image = rows.transpose(1, 2).unsqueeze(-1);
                conv.forward(&image).squeeze_dim(-1).transpose(1, 2)
            }
        }
    }

    fn pack(&mut self, precision: Precision) {
        match self {
            Self::Linear(linear) => linear.pack(precision),
            Self::Conv(conv) => conv.pack(precision),
        }
    }
}

#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    /// To the values and the gates of GEGLU (Shazeer 2020).
    geglu: Linear,
    ff_out: Linear,
}

impl TransformerBlock {
    fn new(path: &Path, config: SpatialTransformerConfig) -> Self {
        let SpatialTransformerConfig { channels, heads, context_width, .. } = config;
        let std = |inputs: i64| (inputs as f64).powf(-0.5);
        let (attn1, attn2, ff) = (path / "attn1", path / "attn2", path / "ff" / "net");
        let norm = |name: &str| LayerNorm::new(&(path / name), channels, LAYER_NORM_EPS);
        let without_bias = |path: Path, input, output| Linear::without_bias(&path, input, output, std(input));
        let out =
            |attention: &Path| Linear::new(&(attention / "to_out" / 0), channels, channels, std(channels));
        Self {
            norm1: norm("norm1"),
            attn1: Attention::new(
                without_bias(&attn1 / "in_proj", channels, 3 * channels),
                out(&attn1),
                heads,
            ),
            norm2: norm("norm2"),
            attn2: Attention::cross(
                without_bias(&attn2 / "q_proj", channels, channels),
                without_bias(&attn2 / "kv_proj", context_width, 2 * channels),
                out(&attn2),
                heads,
            ),
            norm3: norm("norm3"),
            geglu: Linear::new(&(&ff / 0 / "proj"), channels, 8 * channels, std(channels)),
            ff_out: Linear::new(&(&ff / 2), 4 * channels, channels, std(4 * channels)),
        }
    }

    /// Maps `x` `[B, N, C]` to the same shape.
    fn forward(&self, x: Tensor, conditions: &mut Conditions) -> Tensor {
        let x = self.attn1.forward(&self.norm1.forward(&x), &AttentionMask::none()) + x;
        let text = conditions.text.next().expect("the text was projected for every cross-attention");
        let queries = self.norm2.forward(&x);
        let read = match &mut conditions.weights {
            None => self.attn2.forward_projected(&queries, text, &AttentionMask::none()),
            Some(all) => {
                let (read, weights) =
                    self.attn2.forward_projected_with_weights(&queries, text, &AttentionMask::none());
                all.push(weights);
                read
            }
        };
        let x = read + x;
        let parts = self.geglu.forward(&self.norm3.forward(&x)).chunk(2, -1);
        self.ff_out.forward(&(&parts[0] * parts[1].gelu("none"))) + x
    }

    fn pack(&mut self, precision: Precision) {
        for norm in [&mut self.norm1, &mut self.norm2, &mut self.norm3] {
            norm.pack(precision);
        }
        self.attn1.pack(precision);
        self.attn2.pack(precision);
        self.geglu.pack(precision);
        self.ff_out.pack(precision);
    }
}
