//! Halving and doubling of the side of an image.

use mm_core::Precision;
use mm_core::nn::{Conv2d, Conv2dConfig};
use tch::Tensor;
use tch::nn::Path;

/// A convolution of stride 2, `conv`.
#[derive(Debug)]
pub(crate) struct Downsample {
    conv: Conv2d,
    /// Zeros are added on the right and at the bottom only.
    pads_end_only: bool,
}

impl Downsample {
    /// Pads by one on each side, as the U-Net does.
    pub(crate) fn new(path: &Path, channels: i64) -> Self {
        Self::padded(path, channels, 1)
    }

    /// Pads by one on the right and at the bottom, as the autoencoder does.
    pub(crate) fn padded_at_end(path: &Path, channels: i64) -> Self {
        Self::padded(path, channels, 0)
    }

    fn padded(path: &Path, channels: i64, padding: i64) -> Self {
        let config = Conv2dConfig { stride: 2, padding, ..Conv2dConfig::same(channels, channels, 3) };
        Self { conv: Conv2d::new(&(path / "conv"), config), pads_end_only: padding == 0 }
    }

    /// Maps `x` `[B, C, H, W]` to `[B, C, H / 2, W / 2]`, rounded up where the padding is on each side.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        match self.pads_end_only {
            true => self.conv.forward(&x.constant_pad_nd([0, 1, 0, 1])),
            false => self.conv.forward(x),
        }
    }

    /// Prepares for inference in `precision`.
    pub(crate) fn pack(&mut self, precision: Precision) {
        self.conv.pack(precision);
    }
}

/// Each pixel repeated to 2 x 2 (or to another size), then a convolution, `conv`.
#[derive(Debug)]
pub(crate) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(crate) fn new(path: &Path, channels: i64) -> Self {
        Self { conv: Conv2d::new(&(path / "conv"), Conv2dConfig::same(channels, channels, 3)) }
    }

    /// Maps `x` `[B, C, H, W]` to `[B, C, height, width]`.
    pub(crate) fn forward(&self, x: &Tensor, height: i64, width: i64) -> Tensor {
        let (_, _, input_height, input_width) = x.size4().expect("an image is [B, C, H, W]");
        match (height, width) == (2 * input_height, 2 * input_width) {
            true => self.conv.forward_doubled(x),
            false => self.conv.forward(&x.upsample_nearest2d([height, width], None, None)),
        }
    }

    /// Prepares for inference in `precision`.
    pub(crate) fn pack(&mut self, precision: Precision) {
        self.conv.pack(precision);
    }
}
