//! Two-dimensional convolutions and the layout of their inputs.

use super::parameter;
use crate::Precision;
use mm_sys::{PackedConv, PackedLinear, PostOp, WinogradConv};
use tch::Tensor;
use tch::nn::{Init, Path};

/// With as many channels in and out, a 3 x 3 convolution by Winograd's algorithm is faster than oneDNN's
/// direct one, in f32 two to three times: below, the transforms cost as much as they save in bf16.
const WINOGRAD_CHANNELS: i64 = 64;

/// Why a packed convolution does not fail.
const FITS: &str = "an image has the channels of its convolution";

/// `x` `[B, C, H, W]` laid out channels-last: the channels of a position are next to each other, as oneDNN's
/// convolutions have them, and `[B, H * W, C]` is a view.
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// A convolution with a square kernel: `weight` `[out, in, k, k]`, `bias` `[out]`.
#[derive(Debug)]
pub struct Conv2d {
    weights: Weights,
    stride: i64,
    padding: i64,
}

#[derive(Debug)]
enum Weights {
    Plain {
        weight: Tensor,
        bias: Tensor,
    },
    Packed(PackedConv),
    /// A 1 x 1 convolution is a linear map of rows. Its weight's best layout as a convolution depends on the
    /// image, and with another layout each call would convert it.
    Rows(PackedLinear),
    Winograd(WinogradConv),
}

/// The sizes of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct Conv2dConfig {
    /// Channels of the input.
    pub input: i64,
    /// Channels of the output.
    pub output: i64,
    /// Side of the kernel.
    pub kernel: i64,
    /// Distance of two outputs in the input.
    pub stride: i64,
    /// Zeros on each side of the input.
    pub padding: i64,
}

impl Conv2dConfig {
    /// A convolution that keeps the size of its input; `kernel` is odd.
    pub fn same(input: i64, output: i64, kernel: i64) -> Self {
        Self { input, output, kernel, stride: 1, padding: kernel / 2 }
    }
}

impl Conv2d {
    /// Creates `weight` and `bias` below `path`, initialized as PyTorch's `Conv2d`.
    pub fn new(path: &Path, config: Conv2dConfig) -> Self {
        let bound = ((config.input * config.kernel * config.kernel) as f64).powf(-0.5);
        Self::init(path, config, Init::Uniform { lo: -bound, up: bound })
    }

    /// As [`Conv2d::new`], with all parameters zero.
    pub fn zeros(path: &Path, config: Conv2dConfig) -> Self {
        Self::init(path, config, Init::Const(0.0))
    }

    fn init(path: &Path, config: Conv2dConfig, init: Init) -> Self {
        let Conv2dConfig { input, output, kernel, stride, padding } = config;
        let shape = [output, input, kernel, kernel];
        let weight = parameter(path, "weight", &shape, init);
        let bias = parameter(path, "bias", &[output], init);
        Self { weights: Weights::Plain { weight, bias }, stride, padding }
    }

    /// Maps `x` `[B, in, H, W]` to `[B, out, H', W']`, channels-last where `x` is.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.weights {
            Weights::Plain { weight, bias } => {
                x.conv2d(weight, Some(bias), [self.stride; 2], [self.padding; 2], [1, 1], 1)
            }
            Weights::Packed(packed) => packed.forward(x, PostOp::None),
            Weights::Rows(linear) => {
                linear.forward(&channels_last(x).permute([0, 2, 3, 1]), PostOp::None).permute([0, 3, 1, 2])
            }
            Weights::Winograd(winograd) => Self::winograd(winograd, x, None),
        }
    }

    /// As [`Conv2d::forward`], plus `other` of the output's shape and type.
    pub fn forward_add(&self, x: &Tensor, other: &Tensor) -> Tensor {
        match &self.weights {
            Weights::Plain { .. } | Weights::Rows(_) => self.forward(x) + other,
            Weights::Packed(packed) => packed.forward_add(x, other),
            Weights::Winograd(winograd) => Self::winograd(winograd, x, Some(&channels_last(other))),
        }
    }

    /// As [`Conv2d::forward`] of `x` with each pixel repeated to 2 x 2.
    pub fn forward_doubled(&self, x: &Tensor) -> Tensor {
        if let Weights::Winograd(winograd) = &self.weights {
            return winograd.forward_doubled(&channels_last(&x.to_kind(winograd.kind()))).expect(FITS);
        }
        let (_, _, height, width) = x.size4().expect("an image is [B, C, H, W]");
        self.forward(&x.upsample_nearest2d([2 * height, 2 * width], None, None))
    }

    fn winograd(conv: &WinogradConv, x: &Tensor, other: Option<&Tensor>) -> Tensor {
        let channels_last = |x: &Tensor| channels_last(&x.to_kind(conv.kind()));
        conv.forward(&channels_last(x), other.map(channels_last).as_ref()).expect(FITS)
    }

    /// Prepares for inference in `precision`, with the weight laid out for oneDNN, or for Winograd's
    /// algorithm where that is faster. int8 is for linear layers: a convolution then computes in f32.
    pub fn pack(&mut self, precision: Precision) {
        if let Weights::Plain { weight, bias } = &self.weights {
            let kind = precision.kind();
            let (output, input, kernel, _) = weight.size4().expect("a weight is [out, in, k, k]");
            let is_same_size = (self.stride, self.padding) == (1, kernel / 2);
            let is_for_winograd = is_same_size
                && kernel == 3
                && input.min(output) >= WINOGRAD_CHANNELS
                && WinogradConv::is_offered(input, output, kind, weight.device());
            let (stride, padding) = (self.stride, self.padding);
            self.weights = tch::no_grad(|| {
                let (weight, bias) = (weight.to_kind(kind), bias.to_kind(kind));
                if is_for_winograd {
                    Weights::Winograd(WinogradConv::new(&weight, &bias))
                } else if is_same_size && kernel == 1 {
                    Weights::Rows(PackedLinear::new(&weight.view([output, input]), Some(&bias)))
                } else {
                    Weights::Packed(PackedConv::new(&weight, Some(&bias), stride, padding, None))
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{assert_close, normal};
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    #[test]
    fn a_packed_convolution_equals_the_plain_one_and_keeps_the_layout() {
        let halves = Conv2dConfig { stride: 2, ..Conv2dConfig::same(8, 16, 3) };
        for (config, size) in [(halves, [2, 16, 3, 5]), (Conv2dConfig::same(8, 16, 1), [2, 16, 6, 10])] {
            let vs = VarStore::new(Device::Cpu);
            let mut conv = Conv2d::new(&vs.root(), config);
            mm_testing::initialize(&vs, 1);
            let x = channels_last(&normal(2, &[2, 8, 6, 10]));
            let plain = conv.forward(&x).detach();
            assert_eq!(plain.size(), size);
            conv.pack(Precision::F32);
            let terms = Tensor::full([1], 8.0, (Kind::Float, Device::Cpu));
            let found = conv.forward(&x);
            assert_close("packed", &found, &plain, &terms);
            assert_eq!(found.stride(), channels_last(&found).stride());
            assert_close("a sum", &conv.forward_add(&x, &found), &(plain * 2.0), &(terms * 2.0));
        }
    }

    #[test]
    fn a_wide_convolution_equals_the_plain_one_within_winograds_rounding() {
        let vs = VarStore::new(Device::Cpu);
        let mut conv = Conv2d::new(&vs.root(), Conv2dConfig::same(WINOGRAD_CHANNELS, WINOGRAD_CHANNELS, 3));
        mm_testing::initialize(&vs, 1);
        let (x, other) = (normal(2, &[1, WINOGRAD_CHANNELS, 5, 6]), normal(3, &[1, WINOGRAD_CHANNELS, 5, 6]));
        let run = |conv: &Conv2d| tch::no_grad(|| [conv.forward_add(&x, &other), conv.forward_doubled(&x)]);
        let plain = run(&conv);
        conv.pack(Precision::F32);
        for (found, plain) in run(&conv).iter().zip(&plain) {
            let off = (found - plain).abs().max().double_value(&[]);
            assert!(off < 5e-5, "off by {off}");
        }
    }
}
