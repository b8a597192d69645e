//! Group normalization of images.

use super::{channels_last, parameter};
use tch::nn::{Init, Path};
use tch::{Device, Tensor};

/// Group normalization (Wu & He 2018) of `[B, C, H, W]`, with `weight` and `bias` `[C]`.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
    is_packed: bool,
}

impl GroupNorm {
    /// Creates `weight` (one) and `bias` (zero) below `path`. `groups` divides `channels`.
    pub fn new(path: &Path, groups: i64, channels: i64, eps: f64) -> Self {
        let weight = parameter(path, "weight", &[channels], Init::Const(1.0));
        let bias = parameter(path, "bias", &[channels], Init::Const(0.0));
        Self { weight, bias, groups, eps, is_packed: false }
    }

    /// Normalizes `x` `[B, C, H, W]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.normalize(x, false)
    }

    /// Normalizes `x` `[B, C, H, W]` and applies SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        self.normalize(x, true)
    }

    fn normalize(&self, x: &Tensor, silu: bool) -> Tensor {
        if self.is_packed && x.device() == Device::Cpu {
            return mm_sys::group_norm(
                &channels_last(x),
                self.groups,
                &self.weight,
                &self.bias,
                self.eps,
                silu,
            )
            .expect("a group norm's input has its channels");
        }
        let (weight, bias) = (self.weight.to_kind(x.kind()), self.bias.to_kind(x.kind()));
        let y = x.group_norm(self.groups, Some(&weight), Some(&bias), self.eps, true);
        if silu { y.silu() } else { y }
    }

    /// Prepares for inference, in any precision: statistics are f32, the output has the input's type.
    pub fn pack(&mut self) {
        self.weight = self.weight.detach();
        self.bias = self.bias.detach();
        self.is_packed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{assert_close, normal};
    use tch::nn::VarStore;

    #[test]
    fn a_packed_norm_equals_the_plain_one() {
        let vs = VarStore::new(Device::Cpu);
        let mut norm = GroupNorm::new(&vs.root(), 4, 16, 1e-6);
        mm_testing::initialize(&vs, 1);
        let x = normal(2, &[2, 16, 5, 7]);
        let plain = [norm.forward(&x), norm.forward_silu(&x)].map(|y| y.detach());
        norm.pack();
        let terms = Tensor::from(4.0);
        for (found, plain) in [norm.forward(&x), norm.forward_silu(&x)].iter().zip(&plain) {
            assert_close("packed", found, plain, &terms);
        }
    }
}
