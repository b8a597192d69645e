//! The encoder and the decoder.

use super::config::VaeConfig;
use crate::layers::{Downsample, ResnetBlock, ResnetConfig, Upsample, to_rows};
use mm_core::Precision;
use mm_core::nn::{Attention, AttentionMask, Conv2d, Conv2dConfig, GroupNorm, Linear};
use tch::Tensor;
use tch::nn::Path;

/// Epsilon of all norms.
const EPS: f64 = 1e-6;

fn resnet(path: &Path, config: &VaeConfig, input: i64, output: i64) -> ResnetBlock {
    let groups = config.norm_num_groups;
    ResnetBlock::new(path, ResnetConfig { input, output, time: None, groups, eps: EPS })
}

/// `count` ResNet blocks, the first from `input` to `output` channels.
fn resnets(path: &Path, config: &VaeConfig, input: i64, output: i64, count: i64) -> Vec<ResnetBlock> {
    let resnet = |index: i64| {
        resnet(&(path / "resnets" / index), config, if index == 0 { input } else { output }, output)
    };
    (0..count).map(resnet).collect()
}

fn through(resnets: &[ResnetBlock], x: Tensor) -> Tensor {
    resnets.iter().fold(x, |x, resnet| resnet.forward(&x, None))
}

/// Self-attention of one head over the positions of an image, added to it.
#[derive(Debug)]
struct ImageAttention {
    group_norm: GroupNorm,
    attention: Attention,
}

impl ImageAttention {
    fn new(path: &Path, config: &VaeConfig, channels: i64) -> Self {
        let std = (channels as f64).powf(-0.5);
        let in_proj = Linear::new(&(path / "in_proj"), channels, 3 * channels, std);
        let out_proj = Linear::new(&(path / "to_out" / 0), channels, channels, std);
        Self {
            group_norm: GroupNorm::new(&(path / "group_norm"), config.norm_num_groups, channels, EPS),
            attention: Attention::new(in_proj, out_proj, 1),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (batch, channels, height, width) = x.size4().expect("an image is [B, C, H, W]");
        let rows = to_rows(&self.group_norm.forward(x));
        let rows = self.attention.forward(&rows, &AttentionMask::none());
        rows.view([batch, height, width, channels]).permute([0, 3, 1, 2]) + x
    }

    fn pack(&mut self, precision: Precision) {
        self.group_norm.pack();
        self.attention.pack(precision);
    }
}

/// Two ResNet blocks with attention between them.
#[derive(Debug)]
struct MidBlock {
    resnets: Vec<ResnetBlock>,
    attention: Option<ImageAttention>,
}

impl MidBlock {
    fn new(path: &Path, config: &VaeConfig) -> Self {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        Self {
            resnets: resnets(path, config, channels, channels, 2),
            attention: config
                .mid_block_add_attention
                .then(|| ImageAttention::new(&(path / "attentions" / 0), config, channels)),
        }
    }

    fn forward(&self, x: Tensor) -> Tensor {
        let mut x = self.resnets[0].forward(&x, None);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x);
        }
        self.resnets[1].forward(&x, None)
    }

    fn pack(&mut self, precision: Precision) {
        self.resnets.iter_mut().for_each(|resnet| resnet.pack(precision));
        self.attention.iter_mut().for_each(|attention| attention.pack(precision));
    }
}

/// From an image to the parameters of its latents' distribution.
#[derive(Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<ResnetBlock>, Option<Downsample>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(path: &Path, config: &VaeConfig) -> Self {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels.len() - 1);
        let block = |(level, &output): (usize, &i64)| {
            let path = path / "down_blocks" / level as i64;
            let input = channels[level.saturating_sub(1)];
            let downsample =
                (level < last).then(|| Downsample::padded_at_end(&(&path / "downsamplers" / 0), output));
            (resnets(&path, config, input, output, config.layers_per_block), downsample)
        };
        let conv_in = Conv2dConfig::same(config.in_channels, first, 3);
        let conv_out = Conv2dConfig::same(channels[last], 2 * config.latent_channels, 3);
        Self {
            conv_in: Conv2d::new(&(path / "conv_in"), conv_in),
            down_blocks: channels.iter().enumerate().map(block).collect(),
            mid_block: MidBlock::new(&(path / "mid_block"), config),
            conv_norm_out: GroupNorm::new(
                &(path / "conv_norm_out"),
                config.norm_num_groups,
                channels[last],
                EPS,
            ),
            conv_out: Conv2d::new(&(path / "conv_out"), conv_out),
        }
    }

    /// Maps `x` `[B, in_channels, H, W]` to `[B, 2 latent_channels, H / reduction, W / reduction]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(x);
        for (resnets, downsample) in &self.down_blocks {
            x = through(resnets, x);
            if let Some(downsample) = downsample {
                x = downsample.forward(&x);
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&self.mid_block.forward(x)))
    }

    pub(super) fn pack(&mut self, precision: Precision) {
        self.conv_in.pack(precision);
        for (resnets, downsample) in &mut self.down_blocks {
            resnets.iter_mut().for_each(|resnet| resnet.pack(precision));
            downsample.iter_mut().for_each(|downsample| downsample.pack(precision));
        }
        self.mid_block.pack(precision);
        self.conv_norm_out.pack();
        self.conv_out.pack(precision);
    }
}

/// From latents to an image.
#[derive(Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<ResnetBlock>, Option<Upsample>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(path: &Path, config: &VaeConfig) -> Self {
        let channels: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let last = channels.len() - 1;
        let block = |(index, &output): (usize, &i64)| {
            let path = path / "up_blocks" / index as i64;
            let input = channels[index.saturating_sub(1)];
            let upsample = (index < last).then(|| Upsample::new(&(&path / "upsamplers" / 0), output));
            (resnets(&path, config, input, output, config.layers_per_block + 1), upsample)
        };
        let conv_in = Conv2dConfig::same(config.latent_channels, channels[0], 3);
        let conv_out = Conv2dConfig::same(channels[last], config.out_channels, 3);
        Self {
            conv_in: Conv2d::new(&(path / "conv_in"), conv_in),
            mid_block: MidBlock::new(&(path / "mid_block"), config),
            up_blocks: channels.iter().enumerate().map(block).collect(),
            conv_norm_out: GroupNorm::new(
                &(path / "conv_norm_out"),
                config.norm_num_groups,
                channels[last],
                EPS,
            ),
            conv_out: Conv2d::new(&(path / "conv_out"), conv_out),
        }
    }

    /// Maps `x` `[B, latent_channels, h, w]` to `[B, out_channels, h * reduction, w * reduction]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.mid_block.forward(self.conv_in.forward(x));
        for (resnets, upsample) in &self.up_blocks {
            x = through(resnets, x);
            if let Some(upsample) = upsample {
                let (_, _, height, width) = x.size4().expect("an image is [B, C, H, W]");
                x = upsample.forward(&x, 2 * height, 2 * width);
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x))
    }

    pub(super) fn pack(&mut self, precision: Precision) {
        self.conv_in.pack(precision);
        self.mid_block.pack(precision);
        for (resnets, upsample) in &mut self.up_blocks {
            resnets.iter_mut().for_each(|resnet| resnet.pack(precision));
            upsample.iter_mut().for_each(|upsample| upsample.pack(precision));
        }
        self.conv_norm_out.pack();
        self.conv_out.pack(precision);
    }
}
