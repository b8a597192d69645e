//! The blocks of the U-Net on the way down, in the middle and on the way up.

use super::config::UNetConfig;
use crate::layers::{
    Conditions, Downsample, ResnetBlock, ResnetConfig, SpatialTransformer, SpatialTransformerConfig, Upsample,
};
use mm_core::Precision;
use mm_core::nn::KeyValues;
use tch::Tensor;
use tch::nn::Path;

/// The width of the time embedding, in widths of the first block.
pub(super) const TIME_FACTOR: i64 = 4;

/// The ResNet block of `config` from `input` to `output` channels.
fn resnet(path: &Path, config: &UNetConfig, input: i64, output: i64) -> ResnetBlock {
    let time = Some(TIME_FACTOR * config.block_out_channels[0]);
    let (groups, eps) = (config.norm_num_groups, config.norm_eps);
    ResnetBlock::new(path, ResnetConfig { input, output, time, groups, eps })
}

/// The transformer of block `level`, counted on the way down.
fn transformer(path: &Path, config: &UNetConfig, level: usize) -> SpatialTransformer {
    let shape = SpatialTransformerConfig {
        channels: config.block_out_channels[level],
        heads: config.heads(level),
        layers: config.transformer_layers_per_block.get(level),
        context_width: config.cross_attention_dim.get(level),
        groups: config.norm_num_groups,
        linear_projection: config.use_linear_projection,
    };
    SpatialTransformer::new(path, shape)
}

/// A ResNet block and the transformer after it, if the block has attention.
#[derive(Debug)]
struct Layer {
    resnet: ResnetBlock,
    attention: Option<SpatialTransformer>,
}

impl Layer {
    fn forward(&self, x: &Tensor, conditions: &mut Conditions) -> Tensor {
        let x = self.resnet.forward(x, Some(&conditions.time));
        match &self.attention {
            Some(attention) => attention.forward(&x, conditions),
            None => x,
        }
    }

    fn pack(&mut self, precision: Precision) {
        self.resnet.pack(precision);
        self.attention.iter_mut().for_each(|attention| attention.pack(precision));
    }
}

fn project_text(layers: &[Layer], states: &Tensor, into: &mut Vec<KeyValues>) {
    for attention in layers.iter().filter_map(|layer| layer.attention.as_ref()) {
        into.extend(attention.project_text(states));
    }
}

/// Layers, then half the side, except in the last block.
#[derive(Debug)]
pub(super) struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Downsample>,
}

impl DownBlock {
    pub(super) fn new(path: &Path, config: &UNetConfig, level: usize) -> Self {
        let output = config.block_out_channels[level];
        let input = config.block_out_channels[level.saturating_sub(1)];
        let has_attention = config.down_block_types[level].starts_with("CrossAttn");
        let layer = |index: i64| Layer {
            resnet: resnet(
                &(path / "resnets" / index),
                config,
                if index == 0 { input } else { output },
                output,
            ),
            attention: has_attention.then(|| transformer(&(path / "attentions" / index), config, level)),
        };
        let is_last = level + 1 == config.block_out_channels.len();
        Self {
            layers: (0..config.layers_per_block.get(level)).map(layer).collect(),
            downsample: (!is_last).then(|| Downsample::new(&(path / "downsamplers" / 0), output)),
        }
    }

    /// Maps `x` `[B, input, H, W]` to `[B, output, H / 2, W / 2]`; what the way up reads is added to `skips`.
    pub(super) fn forward(&self, x: Tensor, conditions: &mut Conditions, skips: &mut Vec<Tensor>) -> Tensor {
        let mut x = x;
        for layer in &self.layers {
            x = layer.forward(&x, conditions);
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }

    pub(super) fn project_text(&self, states: &Tensor, into: &mut Vec<KeyValues>) {
        project_text(&self.layers, states, into);
    }

    pub(super) fn pack(&mut self, precision: Precision) {
        self.layers.iter_mut().for_each(|layer| layer.pack(precision));
        self.downsample.iter_mut().for_each(|downsample| downsample.pack(precision));
    }
}

/// A ResNet block, a transformer and a ResNet block.
#[derive(Debug)]
pub(super) struct MidBlock {
    first: Layer,
    last: ResnetBlock,
}

impl MidBlock {
    pub(super) fn new(path: &Path, config: &UNetConfig) -> Self {
        let level = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[level];
        let resnet = |index: i64| resnet(&(path / "resnets" / index), config, channels, channels);
        Self {
            first: Layer {
                resnet: resnet(0),
                attention: Some(transformer(&(path / "attentions" / 0), config, level)),
            },
            last: resnet(1),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, conditions: &mut Conditions) -> Tensor {
        let x = self.first.forward(x, conditions);
        self.last.forward(&x, Some(&conditions.time))
    }

    pub(super) fn project_text(&self, states: &Tensor, into: &mut Vec<KeyValues>) {
        project_text(std::slice::from_ref(&self.first), states, into);
    }

    pub(super) fn pack(&mut self, precision: Precision) {
        self.first.pack(precision);
        self.last.pack(precision);
    }
}

/// Layers that each read the output of one on the way down, then twice the side, except in the last block.
#[derive(Debug)]
pub(super) struct UpBlock {
    layers: Vec<Layer>,
    upsample: Option<Upsample>,
}

impl UpBlock {
    /// Block `index` on the way up.
    pub(super) fn new(path: &Path, config: &UNetConfig, index: usize) -> Self {
        let last = config.block_out_channels.len() - 1;
        let channels = |index: usize| config.block_out_channels[last - index.min(last)];
        let (previous, output) = (channels(index.saturating_sub(1)), channels(index));
        let has_attention = config.up_block_types[index].starts_with("CrossAttn");
        let layers = config.layers_per_block.get(last - index) + 1;
        let layer = |layer: i64| {
            let skip = if layer + 1 == layers { channels(index + 1) } else { output };
            let input = if layer == 0 { previous } else { output };
            Layer {
                resnet: resnet(&(path / "resnets" / layer), config, input + skip, output),
                attention: has_attention
                    .then(|| transformer(&(path / "attentions" / layer), config, last - index)),
            }
        };
        Self {
            layers: (0..layers).map(layer).collect(),
            upsample: (index < last).then(|| Upsample::new(&(path / "upsamplers" / 0), output)),
        }
    }

    /// Maps `x` `[B, previous, H, W]` and the last of `skips` to `[B, output, H', W']`, the size of the next
    /// skip.
    pub(super) fn forward(&self, x: Tensor, conditions: &mut Conditions, skips: &mut Vec<Tensor>) -> Tensor {
        let mut x = x;
        for layer in &self.layers {
            let skip = skips.pop().expect("the way down left an output for every layer");
            x = layer.forward(&Tensor::cat(&[x, skip], 1), conditions);
        }
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(next)) => {
                let (_, _, height, width) = next.size4().expect("a skip is [B, C, H, W]");
                upsample.forward(&x, height, width)
            }
            _ => x,
        }
    }

    pub(super) fn project_text(&self, states: &Tensor, into: &mut Vec<KeyValues>) {
        project_text(&self.layers, states, into);
    }

    pub(super) fn pack(&mut self, precision: Precision) {
        self.layers.iter_mut().for_each(|layer| layer.pack(precision));
        self.upsample.iter_mut().for_each(|upsample| upsample.pack(precision));
    }
}
