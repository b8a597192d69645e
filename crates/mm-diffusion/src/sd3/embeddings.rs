//! Patches with their positions, and the vector that conditions every layer.

use super::{Sd3Config, xavier};
use crate::layers::{SiluMlp, sinusoid};
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::nn::{Conv2d, Conv2dConfig, buffer};
use tch::nn::Path;
use tch::{Device, Kind, Tensor};

/// The longest period of the sines and cosines of positions, over 2 pi.
const MAX_PERIOD: f64 = 10_000.0;

/// Values of the timestep's sines and cosines.
const TIMESTEP_WIDTH: i64 = 256;

/// Maps patches to vectors and adds their positions: a window in the middle of one table for all sizes.
#[derive(Debug)]
pub(super) struct PatchEmbed {
    proj: Conv2d,
    /// `[1, max_size * max_size, width]`, part of the checkpoint.
    pos_embed: Tensor,
    patch: i64,
    max_size: i64,
}

impl PatchEmbed {
    pub fn new(path: &Path, config: &Sd3Config) -> Self {
        let (patch, max_size, width) = (config.patch_size, config.pos_embed_max_size, config.width());
        let conv = Conv2dConfig {
            input: config.in_channels,
            output: width,
            kernel: patch,
            stride: patch,
            padding: 0,
        };
        let proj = Conv2d::new(&(path / "proj"), conv);
        let mut pos_embed = buffer(path, "pos_embed", &[1, max_size * max_size, width], 0.0);
        // A model made for its shapes alone has no memory to write to.
        if pos_embed.is_contiguous() {
            pos_embed.copy_(&positions(width, max_size, config.sample_size / patch, path.device()));
        }
        Self { proj, pos_embed, patch, max_size }
    }

    /// The rows and columns of patches of an image `height` by `width`.
    ///
    /// # Errors
    /// A side is no multiple of a patch, has none, or has more than the table of positions.
    pub fn grid(&self, height: i64, width: i64) -> Result<(i64, i64)> {
        let (patch, max_size) = (self.patch, self.max_size);
        for (name, side) in [("height", height), ("width", width)] {
            if side % patch != 0 || !(1..=max_size).contains(&(side / patch)) {
                return Err(Error::Model(format!(
                    "{name} is {side}: it must be a multiple of patch_size {patch} up to {}, for \
                     pos_embed_max_size is {max_size}",
                    max_size * patch
                )));
            }
        }
        Ok((height / patch, width / patch))
    }

    /// Maps `x` `[B, C, rows * patch, columns * patch]` to `[B, rows * columns, width]`.
    pub fn forward(&self, x: &Tensor, (rows, columns): (i64, i64)) -> Tensor {
        let patches = self.proj.forward(x).flatten(2, 3).transpose(1, 2); // [B, N, width]
        let (top, left) = ((self.max_size - rows) / 2, (self.max_size - columns) / 2);
        let positions = self
            .pos_embed
            .view([1, self.max_size, self.max_size, -1])
            .narrow(1, top, rows)
            .narrow(2, left, columns)
            .flatten(1, 2); // [1, N, width]
        (patches + positions).contiguous()
    }

    /// The type of the weights.
    pub fn kind(&self) -> Kind {
        self.pos_embed.kind()
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.proj.pack(precision);
        self.pos_embed = self.pos_embed.to_kind(precision.kind());
    }
}

/// The table of positions `[1, max_size * max_size, width]`: half of a vector is sines and cosines of the
/// column, half of the row, in units in which `base` patches are as long as the table (Vaswani et al. 2017,
/// section 3.5, for each side).
fn positions(width: i64, max_size: i64, base: i64, device: Device) -> Tensor {
    let half = width / 2;
    let steps = Tensor::arange(max_size, (Kind::Float, device)) / (max_size as f64 / base as f64);
    let exponents = Tensor::arange(half / 2, (Kind::Double, device)) / (half / 2) as f64;
    let frequencies = (exponents * -MAX_PERIOD.ln()).exp();
    let angles = steps.outer(&frequencies); // [max_size, half / 2]
    let side = Tensor::cat(&[angles.sin(), angles.cos()], 1).to_kind(Kind::Float);
    let shape = [max_size, max_size, half];
    let (columns, rows) = (side.unsqueeze(0).expand(shape, false), side.unsqueeze(1).expand(shape, false));
    Tensor::cat(&[columns, rows], 2).view([1, max_size * max_size, width])
}

/// The timestep and the pooled text as one vector.
#[derive(Debug)]
pub(super) struct ConditionEmbedding {
    timestep_embedder: SiluMlp,
    text_embedder: SiluMlp,
}

impl ConditionEmbedding {
    pub fn new(path: &Path, pooled: i64, width: i64) -> Self {
        Self {
            timestep_embedder: SiluMlp::new(&(path / "timestep_embedder"), TIMESTEP_WIDTH, width, xavier),
            text_embedder: SiluMlp::new(&(path / "text_embedder"), pooled, width, xavier),
        }
    }

    /// Maps `timestep` `[B]`, fractions included, and `pooled` `[B, pooled]` to `[B, width]`.
    pub fn forward(&self, timestep: &Tensor, pooled: &Tensor) -> Tensor {
        // In f32, in which timesteps near 1000 stay apart.
        let timestep = sinusoid(timestep, TIMESTEP_WIDTH, true, 0.0).to_kind(pooled.kind());
        self.timestep_embedder.forward(&timestep) + self.text_embedder.forward(pooled)
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.timestep_embedder.pack(precision);
        self.text_embedder.pack(precision);
    }
}
