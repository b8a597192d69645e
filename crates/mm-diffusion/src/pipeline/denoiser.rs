//! The model that a pipeline calls at each step.

use crate::sd3::{Sd3Condition, Sd3Transformer};
use crate::text::TextConditions;
use crate::unet::{TextKeyValues, UNet, UNetInputs};
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::checkpoint::NameMap;
use tch::{Kind, Tensor};

/// A U-Net or a transformer.
#[derive(Debug)]
pub(crate) enum Denoiser {
    UNet(Box<UNet>),
    Transformer(Box<Sd3Transformer>),
}

/// What a denoiser reads beside noisy latents of R rows, computed once for all steps.
pub(crate) struct Conditions {
    text: Text,
    pooled: Option<Tensor>,
    /// SDXL's six sizes, `[R, 6]`.
    sizes: Option<Tensor>,
    /// The guidance scale of a distilled model, `[R, D]`.
    guidance: Option<Tensor>,
}

enum Text {
    /// Of a U-Net: for each group of rows that share a prompt.
    KeyValues(TextKeyValues),
    States {
        states: Tensor,
        mask: Option<Tensor>,
    },
}

impl Denoiser {
    /// Channels of the input.
    pub(crate) fn in_channels(&self) -> i64 {
        match self {
            Self::UNet(unet) => unet.config().in_channels,
            Self::Transformer(transformer) => transformer.config().in_channels,
        }
    }

    /// The tensors of each variable in checkpoints.
    pub(crate) fn names(&self) -> NameMap {
        match self {
            Self::UNet(_) => UNet::LAYOUT.names,
            Self::Transformer(_) => Sd3Transformer::LAYOUT.names,
        }
    }

    /// Side of the latents that the model is made for.
    pub(crate) fn sample_size(&self) -> i64 {
        match self {
            Self::UNet(unet) => unet.config().sample_size,
            Self::Transformer(transformer) => transformer.config().sample_size,
        }
    }

    /// The number that sides of latents must be a multiple of.
    pub(crate) fn unit(&self) -> i64 {
        match self {
            Self::UNet(_) => 1,
            Self::Transformer(transformer) => transformer.config().patch_size,
        }
    }

    /// The longest side of latents that the model has positions for, where it has a table of them.
    pub(crate) fn most_size(&self) -> Option<i64> {
        match self {
            Self::UNet(_) => None,
            Self::Transformer(transformer) => {
                let config = transformer.config();
                Some(config.pos_embed_max_size * config.patch_size)
            }
        }
    }

    /// Width of a distilled model's embedded guidance scale.
    pub(crate) fn guidance_width(&self) -> Option<i64> {
        match self {
            Self::UNet(unet) => unet.config().time_cond_proj_dim,
            Self::Transformer(_) => None,
        }
    }

    /// Prepares `text` of `branches` branches of equal size for all steps. Where all prompts of a branch are
    /// the same, their keys and values are computed once.
    pub(crate) fn prepare(
        &self,
        text: TextConditions,
        branches: i64,
        same_prompts: bool,
        sizes: Option<Tensor>,
        guidance: Option<Tensor>,
    ) -> Conditions {
        let TextConditions { states, pooled, mask } = text;
        let text = match self {
            Self::UNet(unet) => {
                let rows = states.size()[0] / branches;
                let states = if same_prompts && rows > 1 {
                    let first = Tensor::arange(branches, (Kind::Int64, states.device())) * rows;
                    states.index_select(0, &first)
                } else {
                    states
                };
                Text::KeyValues(unet.project_text(&states))
            }
            Self::Transformer(_) => Text::States { states, mask },
        };
        Conditions { text, pooled, sizes, guidance }
    }

    /// The output for `sample` `[R, C, h, w]` at `timestep`, in f32, and with `keeps_weights` the attention
    /// `[R, heads, N, L]` of each layer to the text.
    pub(crate) fn forward(
        &self,
        sample: &Tensor,
        timestep: f64,
        conditions: &Conditions,
        keeps_weights: bool,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let rows = sample.size()[0];
        let timestep = Tensor::full([rows], timestep, (Kind::Float, sample.device()));
        let (output, weights) = match (self, &conditions.text) {
            (Self::UNet(unet), Text::KeyValues(text)) => {
                let inputs = UNetInputs {
                    sample,
                    timestep: &timestep,
                    text,
                    added: conditions.pooled.as_ref().zip(conditions.sizes.as_ref()),
                    guidance: conditions.guidance.as_ref(),
                };
                unet.run(inputs, keeps_weights)?
            }
            (Self::Transformer(transformer), Text::States { states, mask }) => {
                let condition = Sd3Condition {
                    encoder_hidden_states: states,
                    pooled_projections: conditions
                        .pooled
                        .as_ref()
                        .expect("a transformer's text has a vector"),
                    attention_mask: mask.as_ref(),
                };
                transformer.run(sample, &timestep, &condition, keeps_weights)?
            }
            _ => unreachable!("conditions are prepared by the same denoiser"),
        };
        Ok((output.to_kind(Kind::Float), weights))
    }

    /// The output for `input` `[B, C, h, w]`, each at its own `timestep` `[B]`, with gradients. `sizes`
    /// `[B, 6]` are SDXL's.
    pub(crate) fn predict(
        &self,
        input: &Tensor,
        timestep: &Tensor,
        text: &TextConditions,
        sizes: &Tensor,
    ) -> Result<Tensor> {
        match self {
            Self::Transformer(transformer) => {
                let missing = || Error::Model("a transformer reads one vector a text".to_owned());
                let condition = Sd3Condition {
                    encoder_hidden_states: &text.states,
                    pooled_projections: text.pooled.as_ref().ok_or_else(missing)?,
                    attention_mask: text.mask.as_ref(),
                };
                transformer.forward(input, timestep, &condition)
            }
            Self::UNet(unet) => {
                let text_states = unet.project_text(&text.states);
                unet.forward(UNetInputs {
                    sample: input,
                    timestep,
                    text: &text_states,
                    added: text.pooled.as_ref().map(|pooled| (pooled, sizes)),
                    guidance: None,
                })
            }
        }
    }

    /// Lets each block keep its inputs alone in training, and compute the rest again in the backward pass.
    ///
    /// # Errors
    /// A U-Net has no such blocks.
    pub(crate) fn checkpoint_gradients(&mut self) -> Result<()> {
        match self {
            Self::Transformer(transformer) => {
                transformer.checkpoint_gradients();
                Ok(())
            }
            Self::UNet(_) => Err(Error::Model(
                "train.gradient_checkpointing is of transformers: a U-Net keeps its activations; lower \
                 train.batch_size or raise train.accumulate"
                    .to_owned(),
            )),
        }
    }

    pub(crate) fn pack(&mut self, precision: Precision) {
        match self {
            Self::UNet(unet) => unet.pack(precision),
            Self::Transformer(transformer) => transformer.pack(precision),
        }
    }
}
