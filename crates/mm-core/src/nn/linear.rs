//! Linear layers, plain or packed for inference.

use super::{parameter, quantize_rows};
use crate::Precision;
use crate::lora::{self, AdapterSlot};
use mm_sys::{Int8Linear, PackedLinear, PostOp};
use tch::nn::{Init, Path};
use tch::{Device, Tensor};

/// An affine map `x W^T + b` of the last dimension, with `weight` `[out, in]` and `bias` `[out]`.
#[derive(Debug)]
pub struct Linear {
    weights: Weights,
    adapters: AdapterSlot,
}

#[derive(Debug)]
enum Weights {
    Plain { weight: Tensor, bias: Option<Tensor> },
    Packed(PackedLinear),
    Int8(Box<Int8Linear>),
}

impl Linear {
    /// Creates `weight` (normal, standard deviation `std`) and `bias` (zero) below `path`.
    pub fn new(path: &Path, input: i64, output: i64, std: f64) -> Self {
        Self::init(path, input, output, std, true)
    }

    /// As [`Linear::new`], without a bias.
    pub fn without_bias(path: &Path, input: i64, output: i64, std: f64) -> Self {
        Self::init(path, input, output, std, false)
    }

    fn init(path: &Path, input: i64, output: i64, std: f64, bias: bool) -> Self {
        let weight = parameter(path, "weight", &[output, input], Init::Randn { mean: 0.0, stdev: std });
        let bias = bias.then(|| parameter(path, "bias", &[output], Init::Const(0.0)));
        let adapters = AdapterSlot::default();
        lora::record(path, &weight, &adapters);
        Self { weights: Weights::Plain { weight, bias }, adapters }
    }

    /// A layer of existing tensors: `weight` `[out, in]`, `bias` `[out]`.
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weights: Weights::Plain { weight, bias }, adapters: AdapterSlot::default() }
    }

    /// A layer for inference whose outputs are those of `first`, then those of `second`, with the adapters of
    /// both merged. None: one of them is packed, or one alone has a bias.
    pub(super) fn joined(first: &Self, second: &Self) -> Option<Self> {
        let Weights::Plain { weight, bias } = &first.weights else { return None };
        let Weights::Plain { weight: second_weight, bias: second_bias } = &second.weights else {
            return None;
        };
        if bias.is_some() != second_bias.is_some() {
            return None;
        }
        let bias = bias.as_ref().zip(second_bias.as_ref());
        Some(tch::no_grad(|| {
            let weights = [first.adapters.merge_into(weight), second.adapters.merge_into(second_weight)];
            let bias = bias.map(|(first, second)| Tensor::cat(&[first, second], 0));
            Self::from_tensors(Tensor::cat(&weights, 0), bias)
        }))
    }

    /// Maps `x` `[..., in]` to `[..., out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_then(x, PostOp::None)
    }

    /// Maps `x` `[..., in]` to `[..., out]` and applies `post`, in one kernel where the weights are packed.
    pub(super) fn forward_then(&self, x: &Tensor, post: PostOp) -> Tensor {
        match &self.weights {
            Weights::Packed(packed) => packed.forward(x, post),
            Weights::Int8(int8) => post.apply(int8.forward(x)),
            Weights::Plain { weight, bias } => {
                post.apply(self.adapters.apply(x, x.linear(weight, bias.as_ref())))
            }
        }
    }

    /// True once [`Linear::pack`] has run.
    pub fn is_packed(&self) -> bool {
        !matches!(self.weights, Weights::Plain { .. })
    }

    /// Converts to `precision` and lays the weights out for oneDNN; the layer then serves inference only.
    /// On a device without int8 kernels it computes in f32.
    pub fn pack(&mut self, precision: Precision) {
        self.pack_scaled(precision, 1.0, 1.0);
    }

    /// As [`Linear::pack`], with the weight scaled by `weight_scale` and the bias by `bias_scale` on the way.
    pub(super) fn pack_scaled(&mut self, precision: Precision, weight_scale: f64, bias_scale: f64) {
        if let Weights::Plain { weight, bias } = &self.weights {
            let (weight, bias) = tch::no_grad(|| {
                let kind = precision.kind();
                let bias = bias.as_ref().map(|bias| (bias * bias_scale).to_kind(kind));
                let weight = self.adapters.merge_into(weight);
                ((weight * weight_scale).to_kind(kind), bias)
            });
            let int8 = (precision == Precision::Int8 && weight.device() == Device::Cpu)
                .then(|| quantize_rows(&weight))
                .and_then(|(integers, scales)| Int8Linear::new(&integers, &scales, bias.as_ref()).ok());
            self.weights = match int8 {
                Some(int8) => Weights::Int8(Box::new(int8)),
                None => Weights::Packed(PackedLinear::new(&weight, bias.as_ref())),
            };
        }
    }
}
