//! The U-Net.

use super::blocks::{DownBlock, MidBlock, TIME_FACTOR, UpBlock};
use super::config::{AddedConditions, UNetConfig};
use crate::layers::{Conditions, LAYOUT, TimeEmbedding, sinusoid};
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::checkpoint::TensorLayout;
use mm_core::nn::{Conv2d, Conv2dConfig, GroupNorm, KeyValues, channels_last};
use tch::Tensor;
use tch::nn::Path;

/// diffusers' `UNet2DConditionModel`: predicts the noise (or what the model was trained for) of latents, from
/// their timestep and a text.
#[derive(Debug)]
pub struct UNet {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    add_embedding: Option<TimeEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    config: UNetConfig,
}

/// The keys and values of texts for every cross-attention: computed once for all steps of an image.
#[derive(Debug)]
pub struct TextKeyValues(Vec<KeyValues>);

/// What a [`UNet`] reads.
#[derive(Clone, Copy, Debug)]
pub struct UNetInputs<'a> {
    /// The noisy latents, `[B, in_channels, H, W]`.
    pub sample: &'a Tensor,
    /// Their timesteps, `[B]`; may be fractional.
    pub timestep: &'a Tensor,
    /// The texts, one for each `B / G` rows in turn.
    pub text: &'a TextKeyValues,
    /// SDXL: the pooled text `[B, P]` and the six sizes `[B, 6]`: height and width of the original, top and
    /// left of the crop, height and width of the target.
    pub added: Option<(&'a Tensor, &'a Tensor)>,
    /// Distilled models: the embedded guidance scale, `[B, time_cond_proj_dim]`.
    pub guidance: Option<&'a Tensor>,
}

impl UNet {
    /// How checkpoints store the model.
    pub const LAYOUT: TensorLayout = LAYOUT;

    /// Creates the model's parameters below `path`, initialized as PyTorch does; the last convolution is
    /// zero, so that an untrained model predicts zero.
    ///
    /// # Errors
    /// As [`UNetConfig::validate`].
    pub fn new(path: &Path, config: &UNetConfig) -> Result<Self> {
        config.validate()?;
        let blocks = 0..config.block_out_channels.len();
        let first = config.block_out_channels[0];
        let time = TIME_FACTOR * first;
        let add_embedding =
            |added: AddedConditions| TimeEmbedding::new(&(path / "add_embedding"), added.width, time, None);
        let conv_in = Conv2dConfig::same(config.in_channels, first, 3);
        let conv_out = Conv2dConfig::same(first, config.out_channels, 3);
        Ok(Self {
            conv_in: Conv2d::new(&(path / "conv_in"), conv_in),
            time_embedding: TimeEmbedding::new(
                &(path / "time_embedding"),
                first,
                time,
                config.time_cond_proj_dim,
            ),
            add_embedding: config.added().map(add_embedding),
            down_blocks: blocks
                .clone()
                .map(|level| DownBlock::new(&(path / "down_blocks" / level as i64), config, level))
                .collect(),
            mid_block: MidBlock::new(&(path / "mid_block"), config),
            up_blocks: blocks
                .map(|index| UpBlock::new(&(path / "up_blocks" / index as i64), config, index))
                .collect(),
            conv_norm_out: GroupNorm::new(
                &(path / "conv_norm_out"),
                config.norm_num_groups,
                first,
                config.norm_eps,
            ),
            conv_out: Conv2d::zeros(&(path / "conv_out"), conv_out),
            config: config.clone(),
        })
    }

    /// The config of the model.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The keys and values of `states` `[G, L, context_width]`.
    pub fn project_text(&self, states: &Tensor) -> TextKeyValues {
        let mut all = Vec::new();
        self.down_blocks.iter().for_each(|block| block.project_text(states, &mut all));
        self.mid_block.project_text(states, &mut all);
        self.up_blocks.iter().for_each(|block| block.project_text(states, &mut all));
        TextKeyValues(all)
    }

    /// Maps the inputs to `[B, out_channels, H, W]`, channels-last.
    ///
    /// # Errors
    /// The inputs lack what the config needs, or have more.
    pub fn forward(&self, inputs: UNetInputs) -> Result<Tensor> {
        Ok(self.run(inputs, false)?.0)
    }

    /// As [`UNet::forward`], also giving the weights `[B, heads, H' * W', L]` of each cross-attention.
    /// Slower; for analysis.
    ///
    /// # Errors
    /// As [`UNet::forward`].
    pub fn forward_with_weights(&self, inputs: UNetInputs) -> Result<(Tensor, Vec<Tensor>)> {
        self.run(inputs, true)
    }

    /// The output, and with `keeps_weights` the weights of [`UNet::forward_with_weights`].
    pub(crate) fn run(&self, inputs: UNetInputs, keeps_weights: bool) -> Result<(Tensor, Vec<Tensor>)> {
        let sample = channels_last(inputs.sample);
        let mut conditions = Conditions {
            time: self.embed_time(inputs)?.silu(),
            text: inputs.text.0.iter(),
            weights: keeps_weights.then(Vec::new),
        };
        let mut x = self.conv_in.forward(&sample);
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &mut conditions, &mut skips);
        }
        x = self.mid_block.forward(&x, &mut conditions);
        for block in &self.up_blocks {
            x = block.forward(x, &mut conditions, &mut skips);
        }
        let x = self.conv_out.forward(&self.conv_norm_out.forward_silu(&x));
        Ok((x, conditions.weights.unwrap_or_default()))
    }

    /// The embedding of the timestep and of all other numbers, `[B, D]`.
    fn embed_time(&self, inputs: UNetInputs) -> Result<Tensor> {
        let UNetConfig { flip_sin_to_cos, freq_shift, .. } = self.config;
        let kind = inputs.sample.kind();
        let embed =
            |numbers: &Tensor, width| sinusoid(numbers, width, flip_sin_to_cos, freq_shift).to_kind(kind);
        if self.config.time_cond_proj_dim.is_some() != inputs.guidance.is_some() {
            return Err(Error::Model("a distilled U-Net, and no other, reads the guidance scale".to_owned()));
        }
        let time = self
            .time_embedding
            .forward(&embed(inputs.timestep, self.config.block_out_channels[0]), inputs.guidance);
        match (&self.add_embedding, self.config.added(), inputs.added) {
            (None, _, None) => Ok(time),
            (Some(embedding), Some(AddedConditions { time_width, .. }), Some((pooled, sizes))) => {
                let batch = pooled.size()[0];
                let sizes = embed(&sizes.reshape([-1]), time_width).reshape([batch, -1]);
                Ok(time + embedding.forward(&Tensor::cat(&[pooled.to_kind(kind), sizes], -1), None))
            }
            _ => Err(Error::Model("SDXL's U-Net, and no other, reads a pooled text and sizes".to_owned())),
        }
    }

    /// Prepares for inference in `precision`: weights are laid out for oneDNN.
    pub fn pack(&mut self, precision: Precision) {
        self.conv_in.pack(precision);
        self.time_embedding.pack(precision);
        self.add_embedding.iter_mut().for_each(|embedding| embedding.pack(precision));
        self.down_blocks.iter_mut().for_each(|block| block.pack(precision));
        self.mid_block.pack(precision);
        self.up_blocks.iter_mut().for_each(|block| block.pack(precision));
        self.conv_norm_out.pack();
        self.conv_out.pack(precision);
    }
}
