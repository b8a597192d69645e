//! Residual blocks of convolutions.

use mm_core::Precision;
use mm_core::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use tch::Tensor;
use tch::nn::Path;

/// The sizes of a [`ResnetBlock`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetConfig {
    pub input: i64,
    pub output: i64,
    /// Width of the time embedding; none in an autoencoder.
    pub time: Option<i64>,
    pub groups: i64,
    pub eps: f64,
}

/// Two convolutions, each after a group norm and SiLU, added to the input; the time embedding is added
/// between them (Ho et al. 2020, appendix B).
#[derive(Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(crate) fn new(path: &Path, config: ResnetConfig) -> Self {
        let ResnetConfig { input, output, time, groups, eps } = config;
        let conv = |name: &str, input, kernel| {
            Conv2d::new(&(path / name), Conv2dConfig::same(input, output, kernel))
        };
        let time_emb_proj =
            |time: i64| Linear::new(&(path / "time_emb_proj"), time, output, (time as f64).powf(-0.5));
        Self {
            norm1: GroupNorm::new(&(path / "norm1"), groups, input, eps),
            conv1: conv("conv1", input, 3),
            time_emb_proj: time.map(time_emb_proj),
            norm2: GroupNorm::new(&(path / "norm2"), groups, output, eps),
            conv2: conv("conv2", output, 3),
            conv_shortcut: (input != output).then(|| conv("conv_shortcut", input, 1)),
        }
    }

    /// Maps `x` `[B, input, H, W]` to `[B, output, H, W]`. `time` `[B, D]` is SiLU of the time embedding.
    pub(crate) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        let mut inner = self.conv1.forward(&self.norm1.forward_silu(x));
        if let (Some(proj), Some(time)) = (&self.time_emb_proj, time) {
            inner += proj.forward(time).unsqueeze(-1).unsqueeze(-1);
        }
        inner = self.norm2.forward_silu(&inner); // frees the former, which a new name would keep
        match &self.conv_shortcut {
            Some(shortcut) => self.conv2.forward_add(&inner, &shortcut.forward(x)),
            None => self.conv2.forward_add(&inner, x),
        }
    }

    /// Prepares for inference in `precision`.
    pub(crate) fn pack(&mut self, precision: Precision) {
        self.norm1.pack();
        self.conv1.pack(precision);
        self.time_emb_proj.iter_mut().for_each(|layer| layer.pack(precision));
        self.norm2.pack();
        self.conv2.pack(precision);
        self.conv_shortcut.iter_mut().for_each(|conv| conv.pack(precision));
    }
}
