//! The towers with their projections to the shared space.

use crate::text_projection::TextProjectionLayers;
use crate::{Error, Result, TextProjection};
use mm_core::Precision;
use mm_core::hf::check_sizes;
use mm_core::nn::Linear;
use mm_text::{TextTower, TextTowerConfig, TokenBatch};
use mm_vision::{HeatMapTaps, ImageTower, ImageTowerConfig};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// An image tower and the linear projection of its output to the space shared with texts, where it does
/// not end there itself.
#[derive(Debug)]
pub struct ImageEncoder {
    tower: Box<dyn ImageTower>,
    projection: Option<Linear>,
    output_width: i64,
}

impl ImageEncoder {
    /// Creates the parameters below `path`: the tower under `vision_model` (a modified ResNet under
    /// `visual`), the map to `projection` numbers as `visual_projection`.
    ///
    /// # Errors
    /// The tower cannot be built, or `projection` is out of range.
    pub fn new(path: &Path, tower: &ImageTowerConfig, projection: Option<i64>) -> Result<Self> {
        check_sizes(&[("the width of the shared space", projection.unwrap_or(1))]).map_err(Error::Model)?;
        let tower = tower.build(&(path / tower.root()))?;
        let (width, output_width) = (tower.output_width(), projection.unwrap_or(tower.output_width()));
        Ok(Self {
            tower,
            projection: projection.map(|to| {
                Linear::without_bias(&(path / "visual_projection"), width, to, (width as f64).powf(-0.5))
            }),
            output_width,
        })
    }

    /// D, the width of the output.
    pub fn output_width(&self) -> i64 {
        self.output_width
    }

    /// Maps `pixel_values` `[B, 3, S, S]` to `[B, D]`, in the type of the weights. `train` is the training
    /// mode.
    pub fn forward(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.project(self.pool(pixel_values, train))
    }

    /// The output of the tower, `[B, W]`.
    pub fn pool(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        self.tower.forward(pixel_values, train)
    }

    /// The output of each block of the tower, `[B, S, C]`: see [`ImageTower::forward_blocks`].
    pub fn forward_blocks(&self, pixel_values: &Tensor) -> Vec<Tensor> {
        self.tower.forward_blocks(pixel_values)
    }

    /// Projects the output of [`ImageEncoder::pool`] to that of [`ImageEncoder::forward`].
    pub fn project(&self, pooled: Tensor) -> Tensor {
        match &self.projection {
            Some(projection) => projection.forward(&pooled),
            None => pooled,
        }
    }

    /// [`ImageEncoder::forward`] as unit rows, f32.
    pub fn encode(&self, pixel_values: &Tensor, train: bool) -> Tensor {
        unit_rows(&self.forward(pixel_values, train))
    }

    /// As [`ImageEncoder::encode`], with the intermediate values for a heat map, in one graph.
    pub fn encode_with_taps(&self, pixel_values: &Tensor) -> (Tensor, HeatMapTaps) {
        let taps = self.tower.forward_with_taps(pixel_values);
        (unit_rows(&self.project(taps.pooled().shallow_clone())), taps)
    }

    /// Packs the weights for inference in `precision`. A packed encoder cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.tower.pack(precision);
        self.projection.iter_mut().for_each(|projection| projection.pack(precision));
    }
}

/// A text tower and the projection of its output to the space shared with images, where it does not end
/// there itself.
#[derive(Debug)]
pub struct TextEncoder {
    tower: Box<dyn TextTower>,
    projection: Option<TextProjectionLayers>,
    output_width: i64,
}

impl TextEncoder {
    /// Creates the parameters below `path`: the tower under `text_model`, the map to the shared space as
    /// `text_projection`.
    ///
    /// # Errors
    /// The tower cannot be built, or a size of `projection` is out of range.
    pub fn new(path: &Path, tower: &TextTowerConfig, projection: Option<TextProjection>) -> Result<Self> {
        let width = tower.output_width();
        let output_width = projection.map_or(width, |sizes| sizes.output_size);
        let tower = tower.build(&(path / TEXT_ROOT))?;
        let projection = projection
            .map(|sizes| TextProjectionLayers::new(&(path / "text_projection"), width, sizes))
            .transpose()?;
        Ok(Self { tower, projection, output_width })
    }

    /// D, the width of the output.
    pub fn output_width(&self) -> i64 {
        self.output_width
    }

    /// Maps `tokens` to `[B, D]`, in the type of the weights.
    pub fn forward(&self, tokens: &TokenBatch) -> Tensor {
        self.project(self.pool(tokens))
    }

    /// [`TextEncoder::forward`] as unit rows, f32.
    pub fn encode(&self, tokens: &TokenBatch) -> Tensor {
        unit_rows(&self.forward(tokens))
    }

    /// The output of the tower, `[B, W]`.
    pub fn pool(&self, tokens: &TokenBatch) -> Tensor {
        self.tower.forward(tokens)
    }

    /// Projects the output of [`TextEncoder::pool`] to that of [`TextEncoder::forward`].
    pub fn project(&self, pooled: Tensor) -> Tensor {
        match &self.projection {
            Some(projection) => projection.forward(&pooled),
            None => pooled,
        }
    }

    /// Packs the weights for inference in `precision`. A packed encoder cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.tower.pack(precision);
        self.projection.iter_mut().for_each(|projection| projection.pack(precision));
    }
}

/// The path of a text tower's parameters.
pub const TEXT_ROOT: &str = "text_model";

/// Normalizes each row of `x` `[B, D]` to length 1, in f32.
pub fn unit_rows(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true).clamp_min(1e-12);
    x / norm
}
