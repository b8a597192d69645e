//! The Swin transformer, as Donut's encoder.

use crate::error::Result;
use crate::swin_config::SwinConfig;
use crate::swin_stem::Stem;
use crate::window_attention::{WindowAttention, WindowPositions};
use crate::windows::Windows;
use mm_core::Precision;
use mm_core::nn::{LayerNorm, Linear, Mlp};
use tch::Tensor;
use tch::nn::Path;

/// Epsilon of the norms outside of blocks, which no config changes.
const NORM_EPS: f64 = 1e-5;

/// A Swin transformer (Liu et al. 2021) without a final norm: the encoder of Donut (Kim et al. 2022, section
/// 3.2), for images of any ratio. Tokens attend to those of their window, every other block shifts the
/// windows, and between stages four neighbors become one token of twice the width.
///
/// Parameter names are those in the files of transformers' `DonutSwinModel`.
///
/// ```
/// use mm_vision::{Swin, SwinConfig};
/// use tch::{Device, Kind, Tensor, nn};
///
/// let config = SwinConfig {
///     image_size: [64, 48],
///     embed_dim: 16,
///     depths: vec![2, 2],
///     num_heads: vec![2, 4],
///     window_size: 4,
///     ..SwinConfig::default()
/// };
/// let vs = nn::VarStore::new(Device::Cpu);
/// let encoder = Swin::new(&(vs.root() / "encoder"), &config)?;
/// let states = encoder.forward(&Tensor::zeros([1, 3, 64, 48], (Kind::Float, Device::Cpu)));
/// assert_eq!((encoder.grid(), states.size()), ((8, 6), vec![1, 48, 32]));
/// # Ok::<(), mm_vision::Error>(())
/// ```
#[derive(Debug)]
pub struct Swin {
    stem: Stem,
    norm: LayerNorm,
    stages: Vec<Stage>,
    positions: WindowPositions,
    config: SwinConfig,
}

impl Swin {
    /// Creates the encoder's parameters below `path`, initialized for training from scratch: normal, with
    /// standard deviations by the width, and biases of positions zero.
    ///
    /// # Errors
    /// As [`SwinConfig::validate`].
    pub fn new(path: &Path, config: &SwinConfig) -> Result<Self> {
        config.validate()?;
        let width = config.embed_dim;
        let embeddings = path / "embeddings";
        let stage = |stage: usize| Stage::new(&(path / "encoder" / "layers" / stage), config, stage);
        Ok(Self {
            stem: Stem::new(&embeddings, config),
            norm: LayerNorm::new(&(&embeddings / "norm"), width, NORM_EPS),
            stages: (0..config.depths.len()).map(stage).collect(),
            positions: WindowPositions::new(config.window_size, path.device()),
            config: config.clone(),
        })
    }

    /// Maps `pixel_values` `[B, 3, H, W]`, of the config's height and width, to the tokens of
    /// [`Swin::grid`], row by row: `[B, rows * columns, D]` with D of [`SwinConfig::hidden_size`].
    ///
    /// # Panics
    /// `pixel_values` has another shape.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let [height, width] = self.config.image_size;
        let (_, _, given_height, given_width) = pixel_values.size4().expect("pixel_values is [B, 3, H, W]");
        let given = [given_height, given_width];
        assert!(given == [height, width], "pixels are {given:?}, the encoder takes {height} x {width}");
        let (rows, columns) = self.config.stage_grid(0);
        let patch = self.config.patch_size;
        let (right, below) = (columns * patch - width, rows * patch - height);
        let padded = if (right, below) == (0, 0) {
            pixel_values.shallow_clone()
        } else {
            pixel_values.constant_pad_nd([0, right, 0, below])
        };
        let x = self.norm.forward(&self.stem.forward(&padded));
        self.stages.iter().fold(x, |x, stage| stage.forward(x, &self.positions))
    }

    /// Rows and columns of the tokens of [`Swin::forward`].
    pub fn grid(&self) -> (i64, i64) {
        self.config.grid()
    }

    /// The config.
    pub fn config(&self) -> &SwinConfig {
        &self.config
    }

    /// Prepares for inference in `precision`. A packed encoder cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.stem.pack(precision);
        self.norm.pack(precision);
        for stage in &mut self.stages {
            stage.pack(precision, &self.positions);
        }
    }
}

/// The blocks of one resolution, and what makes the next of it.
#[derive(Debug)]
struct Stage {
    blocks: Vec<Block>,
    downsample: Option<PatchMerging>,
}

impl Stage {
    fn new(path: &Path, config: &SwinConfig, stage: usize) -> Self {
        let windows = |block: i64| config.windows(stage, block);
        let block = |block: i64| Block::new(&(path / "blocks" / block), config, stage, windows(block));
        let is_last = stage + 1 == config.depths.len();
        let merging = || PatchMerging::new(&(path / "downsample"), config, stage);
        Self { blocks: (0..config.depths[stage]).map(block).collect(), downsample: (!is_last).then(merging) }
    }

    /// Maps tokens `[B, N, C]` to the input of the next stage, `[B, N', 2 C]`, or in the last stage to the
    /// same shape.
    fn forward(&self, x: Tensor, positions: &WindowPositions) -> Tensor {
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x, positions));
        self.downsample.as_ref().map_or_else(|| x.shallow_clone(), |downsample| downsample.forward(&x))
    }

    fn pack(&mut self, precision: Precision, positions: &WindowPositions) {
        self.blocks.iter_mut().for_each(|block| block.pack(precision, positions));
        self.downsample.iter_mut().for_each(|downsample| downsample.pack(precision));
    }
}

/// A transformer block that normalizes before each sub-layer, whose attention is within windows.
#[derive(Debug)]
struct Block {
    layernorm_before: LayerNorm,
    attention: WindowAttention,
    layernorm_after: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(path: &Path, config: &SwinConfig, stage: usize, windows: Windows) -> Self {
        let (width, heads, eps) = (config.width(stage), config.num_heads[stage], config.layer_norm_eps);
        let (inner, std) = (config.mlp_width(stage), config.init_std(width));
        let attention = path / "attention";
        let fc1 = Linear::new(&(path / "intermediate" / "dense"), width, inner, std);
        let fc2 = Linear::new(&(path / "output" / "dense"), inner, width, std);
        Self {
            layernorm_before: LayerNorm::new(&(path / "layernorm_before"), width, eps),
            attention: WindowAttention::new(&attention, width, heads, config.qkv_bias, std, windows),
            layernorm_after: LayerNorm::new(&(path / "layernorm_after"), width, eps),
            mlp: Mlp::new(fc1, fc2, config.hidden_act),
        }
    }

    /// Maps `x` `[B, N, C]` to the same shape.
    fn forward(&self, x: &Tensor, positions: &WindowPositions) -> Tensor {
        let x = x + self.attention.forward(&self.layernorm_before.forward(x), positions);
        &x + self.mlp.forward(&self.layernorm_after.forward(&x))
    }

    fn pack(&mut self, precision: Precision, positions: &WindowPositions) {
        self.layernorm_before.pack(precision);
        self.attention.pack(precision, positions);
        self.layernorm_after.pack(precision);
        self.mlp.pack(precision);
    }
}

/// Makes one token of twice the width of four neighbors (Liu et al. 2021, section 3.1). A side of odd length
/// is padded with zeros.
#[derive(Debug)]
struct PatchMerging {
    norm: LayerNorm,
    reduction: Linear,
    /// Rows and columns of the input.
    grid: (i64, i64),
}

impl PatchMerging {
    fn new(path: &Path, config: &SwinConfig, stage: usize) -> Self {
        let width = config.width(stage);
        let std = config.init_std(4 * width);
        Self {
            norm: LayerNorm::new(&(path / "norm"), 4 * width, NORM_EPS),
            reduction: Linear::without_bias(&(path / "reduction"), 4 * width, 2 * width, std),
            grid: config.stage_grid(stage),
        }
    }

    /// Maps `x` `[B, rows * columns, C]` to `[B, ceil(rows / 2) * ceil(columns / 2), 2 C]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (rows, columns) = self.grid;
        let (batch, _, width) = x.size3().expect("tokens are [B, N, C]");
        let mut x = x.view([batch, rows, columns, width]);
        if rows % 2 == 1 || columns % 2 == 1 {
            x = x.constant_pad_nd([0, 0, 0, columns % 2, 0, rows % 2]);
        }
        let (rows, columns) = ((rows + 1) / 2, (columns + 1) / 2);
        let x = x
            .view([batch, rows, 2, columns, 2, width])
            .permute([0, 1, 3, 4, 2, 5]) // below each other come before side by side
            .reshape([batch, rows * columns, 4 * width]);
        self.reduction.forward(&self.norm.forward(&x))
    }

    fn pack(&mut self, precision: Precision) {
        self.norm.pack(precision);
        self.reduction.pack(precision);
    }
}
