//! Convolutions with batch normalization.

use mm_core::Precision;
use mm_core::nn::{BatchNorm, parameter};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// The shape of a convolution with a square kernel, padded so that stride 1 keeps the size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub(crate) input: i64,
    pub(crate) output: i64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
}

impl ConvShape {
    /// PyTorch's default initialization of a convolution's weight.
    pub(crate) fn default_init(self) -> Init {
        let bound = ((self.input * self.kernel * self.kernel) as f64).powf(-0.5);
        Init::Uniform { lo: -bound, up: bound }
    }
}

/// A convolution without bias and the batch normalization that follows it.
#[derive(Debug)]
pub(crate) struct ConvNorm {
    weights: Weights,
    stride: i64,
    padding: i64,
}

#[derive(Debug)]
enum Weights {
    Plain { conv: Tensor, norm: BatchNorm },
    Packed { weight: Tensor, bias: Tensor },
}

impl ConvNorm {
    /// Creates the convolution's `weight` below `conv` and the normalization's parameters below `norm`.
    pub(crate) fn new(conv: &Path, norm: &Path, shape: ConvShape, init: Init) -> Self {
        Self::scaled(conv, norm, shape, init, 1.0)
    }

    /// As [`ConvNorm::new`], with the normalization's initial `scale`.
    pub(crate) fn scaled(conv: &Path, norm: &Path, shape: ConvShape, init: Init, scale: f64) -> Self {
        let conv = parameter(conv, "weight", &[shape.output, shape.input, shape.kernel, shape.kernel], init);
        let norm = BatchNorm::new(norm, shape.output, scale);
        Self { weights: Weights::Plain { conv, norm }, stride: shape.stride, padding: shape.kernel / 2 }
    }

    /// Maps `x` `[B, input, H, W]` to `[B, output, H / stride, W / stride]`. In training the
    /// statistics of the batch are used, and the running statistics are updated.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        match &self.weights {
            Weights::Plain { conv, norm } => {
                norm.forward(&x.conv2d(conv, None::<Tensor>, stride, padding, [1, 1], 1), train)
            }
            Weights::Packed { weight, bias } => x.conv2d(weight, Some(bias), stride, padding, [1, 1], 1),
        }
    }

    /// As [`ConvNorm::forward`], followed by ReLU in place: the normalization's gradient needs its input, not
    /// its output.
    pub(crate) fn forward_relu(&self, x: &Tensor, train: bool) -> Tensor {
        self.forward(x, train).relu_()
    }

    /// Moves the normalization with its running statistics into the convolution's weight and a bias, for
    /// inference in `precision`.
    pub(crate) fn pack(&mut self, precision: Precision) {
        if let Weights::Plain { conv, norm } = &self.weights {
            let (factors, terms) = norm.factors_and_terms();
            let weight = tch::no_grad(|| (conv * factors.view([-1, 1, 1, 1])).to_kind(precision.kind()));
            let bias = terms.to_kind(precision.kind());
            self.weights = Weights::Packed { weight, bias };
        }
    }

    /// The type that inputs must have once packed.
    pub(crate) fn kind(&self) -> Kind {
        match &self.weights {
            Weights::Plain { conv, .. } => conv.kind(),
            Weights::Packed { weight, .. } => weight.kind(),
        }
    }
}
