//! The transformer.

use super::attention::AttentionContext;
use super::block::{Block, Modulation, modulate, normalize};
use super::embeddings::{ConditionEmbedding, PatchEmbed};
use super::{Sd3Config, xavier};
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::checkpoint::TensorLayout;
use mm_core::nn::Linear;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::nn::Path;
use tch::{Kind, Tensor};

fn names(name: &str) -> Vec<String> {
    let joined: [(&str, &[&str]); 4] = [
        (".to_qkv.", &[".to_q.", ".to_k.", ".to_v."]),
        (".add_qkv_proj.", &[".add_q_proj.", ".add_k_proj.", ".add_v_proj."]),
        (".norm_qk.", &[".norm_q.", ".norm_k."]),
        (".norm_added_qk.", &[".norm_added_q.", ".norm_added_k."]),
    ];
    match joined.iter().find(|(joined, _)| name.contains(joined)) {
        Some((joined, parts)) => parts.iter().map(|part| name.replacen(joined, part, 1)).collect(),
        None => vec![name.to_owned()],
    }
}

/// The text that an image is generated for.
#[derive(Clone, Copy, Debug)]
pub struct Sd3Condition<'a> {
    /// States of its tokens, `[B, L, joint_attention_dim]`.
    pub encoder_hidden_states: &'a Tensor,
    /// One vector a text, `[B, pooled_projection_dim]`.
    pub pooled_projections: &'a Tensor,
    /// `[B, L]`, 0 for tokens that nothing attends to: the result for an item is then that of the item
    /// without them. None, as in diffusers, attends to padding too.
    pub attention_mask: Option<&'a Tensor>,
}

/// Stable Diffusion 3's transformer: predicts the velocity, or what else it is trained for, of noisy images
/// or latents under a text.
#[derive(Debug)]
pub struct Sd3Transformer {
    config: Sd3Config,
    pos_embed: PatchEmbed,
    time_text_embed: ConditionEmbedding,
    context_embedder: Linear,
    /// Shared with the graphs of checkpointed blocks, which may run on one of libtorch's threads.
    blocks: Vec<Arc<Mutex<Block>>>,
    norm_out: Modulation<2>,
    proj_out: Linear,
}

impl Sd3Transformer {
    /// The layout of diffusers' checkpoints.
    pub const LAYOUT: TensorLayout = TensorLayout { names, is_transposed: |_| false };

    /// Creates the parameters below `path`, initialized for training from scratch: modulations and the last
    /// layer are zero, other matrices have Glorot's variance.
    ///
    /// # Errors
    /// As [`Sd3Config::validate`].
    pub fn new(path: &Path, config: &Sd3Config) -> Result<Self> {
        config.validate()?;
        let (width, joint) = (config.width(), config.joint_attention_dim);
        let blocks = path / "transformer_blocks";
        let block = |index| Arc::new(Mutex::new(Block::new(&(&blocks / index), config, index)));
        let outputs = config.patch_size.pow(2) * config.out_channels;
        Ok(Self {
            pos_embed: PatchEmbed::new(&(path / "pos_embed"), config),
            time_text_embed: ConditionEmbedding::new(
                &(path / "time_text_embed"),
                config.pooled_projection_dim,
                width,
            ),
            context_embedder: Linear::new(&(path / "context_embedder"), joint, width, xavier(joint, width)),
            blocks: (0..config.num_layers).map(block).collect(),
            norm_out: Modulation::new(&(path / "norm_out"), width),
            proj_out: Linear::new(&(path / "proj_out"), width, outputs, 0.0),
            config: config.clone(),
        })
    }

    /// The config.
    pub fn config(&self) -> &Sd3Config {
        &self.config
    }

    /// Lets each block keep its inputs alone in training, and compute the rest again in the backward pass.
    pub(crate) fn checkpoint_gradients(&mut self) {
        self.config.gradient_checkpointing = true;
    }

    /// Maps `hidden_states` `[B, in_channels, H, W]` at `timestep` `[B]` (from 0 to 1000, fractions included)
    /// to `[B, out_channels, H, W]`, in the type of `hidden_states`.
    ///
    /// # Errors
    /// A tensor has another shape, or a side of the image is no multiple of a patch or too large.
    pub fn forward(
        &self,
        hidden_states: &Tensor,
        timestep: &Tensor,
        condition: &Sd3Condition,
    ) -> Result<Tensor> {
        Ok(self.run(hidden_states, timestep, condition, false)?.0)
    }

    /// As [`Sd3Transformer::forward`], also giving for each block how the patches attend to the text:
    /// `[B, heads, N, L]` in f32, N patches in rows from the top left. A patch's weights over text and
    /// patches sum to 1.
    ///
    /// # Errors
    /// As [`Sd3Transformer::forward`].
    pub fn forward_with_weights(
        &self,
        hidden_states: &Tensor,
        timestep: &Tensor,
        condition: &Sd3Condition,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        self.run(hidden_states, timestep, condition, true)
    }

    /// The output, and with `keeps_weights` the weights of [`Sd3Transformer::forward_with_weights`].
    pub(crate) fn run(
        &self,
        hidden_states: &Tensor,
        timestep: &Tensor,
        condition: &Sd3Condition,
        keeps_weights: bool,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let mut weights = keeps_weights.then(Vec::new);
        let (batch, height, width) = self.check(hidden_states, timestep, condition)?;
        let (rows, columns) = self.pos_embed.grid(height, width)?;
        let kind = self.pos_embed.kind();
        let mut image = self.pos_embed.forward(&hidden_states.to_kind(kind), (rows, columns)); // [B, N, D]
        let mut text = self.context_embedder.forward(&condition.encoder_hidden_states.to_kind(kind));
        let vector =
            self.time_text_embed.forward(timestep, &condition.pooled_projections.to_kind(kind)).silu();
        let vector = vector.unsqueeze(1); // [B, 1, D]
        let bias = condition.attention_mask.map(|mask| hide(mask, rows * columns));
        for block in &self.blocks {
            let mut context = AttentionContext { bias: bias.as_ref(), weights: weights.as_mut() };
            let (next, next_text) = if self.config.gradient_checkpointing && context.weights.is_none() {
                checkpointed(block, &image, &text, &vector, bias.as_ref())?
            } else {
                lock(block).forward(&image, &text, &vector, &mut context)
            };
            image = next;
            text = next_text.unwrap_or(text);
        }
        let [scale, shift] = self.norm_out.forward(&vector);
        let patches = self.proj_out.forward(&modulate(&normalize(&image), &shift, &scale));
        let (patch, channels) = (self.config.patch_size, self.config.out_channels);
        let output = patches
            .view([batch, rows, columns, patch, patch, channels])
            .permute([0, 5, 1, 3, 2, 4]) // [B, C, rows, patch, columns, patch]
            .reshape([batch, channels, height, width]);
        Ok((output.to_kind(hidden_states.kind()), weights.unwrap_or_default()))
    }

    /// The number of items, the height and the width of inputs that fit the model and each other.
    fn check(
        &self,
        hidden_states: &Tensor,
        timestep: &Tensor,
        condition: &Sd3Condition,
    ) -> Result<(i64, i64, i64)> {
        let &[batch, _, height, width] = hidden_states.size().as_slice() else {
            let size = hidden_states.size();
            return Err(Error::Model(format!("hidden_states is {size:?}, not [B, C, H, W]")));
        };
        let text = condition.encoder_hidden_states;
        let tokens = text.size().get(1).copied().unwrap_or_default();
        let config = &self.config;
        let mut shapes = vec![
            ("hidden_states", hidden_states, vec![batch, config.in_channels, height, width]),
            ("timestep", timestep, vec![batch]),
            ("encoder_hidden_states", text, vec![batch, tokens, config.joint_attention_dim]),
            ("pooled_projections", condition.pooled_projections, vec![batch, config.pooled_projection_dim]),
        ];
        shapes.extend(condition.attention_mask.map(|mask| ("attention_mask", mask, vec![batch, tokens])));
        match shapes.into_iter().find(|(_, tensor, expected)| tensor.size() != *expected) {
            Some((name, tensor, expected)) => {
                Err(Error::Model(format!("{name} is {:?}: expected {expected:?}", tensor.size())))
            }
            None => Ok((batch, height, width)),
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.pos_embed.pack(precision);
        self.time_text_embed.pack(precision);
        self.context_embedder.pack(precision);
        self.blocks.iter().for_each(|block| lock(block).pack(precision));
        self.norm_out.pack(precision);
        self.proj_out.pack(precision);
    }
}

/// The bias `[B, 1, 1, patches + L]` of attention that hides the text where `attention_mask` `[B, L]` is 0.
fn hide(attention_mask: &Tensor, patches: i64) -> Tensor {
    let hidden = attention_mask.eq(0).constant_pad_nd([patches, 0]);
    let bias = hidden.zeros_like().to_kind(Kind::Float).masked_fill(&hidden, f64::NEG_INFINITY);
    bias.unsqueeze(1).unsqueeze(1)
}

/// [`Block::forward`], run again in the backward pass.
fn checkpointed(
    block: &Arc<Mutex<Block>>,
    image: &Tensor,
    text: &Tensor,
    condition: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Option<Tensor>)> {
    let (patches, tokens) = (image.size()[1], text.size()[1]);
    let (block, bias) = (Arc::clone(block), bias.map(Tensor::shallow_clone));
    // The graph of a checkpoint has one input and one output.
    let joined = Tensor::cat(&[image, text, condition], 1);
    let output = mm_sys::checkpointed(&joined, move |joined| {
        let parts = joined.split_with_sizes([patches, tokens, 1], 1);
        let mut context = AttentionContext { bias: bias.as_ref(), weights: None };
        match lock(&block).forward(&parts[0], &parts[1], &parts[2], &mut context) {
            (image, Some(text)) => Tensor::cat(&[image, text], 1),
            (image, None) => image,
        }
    })
    .map_err(mm_core::Error::from)?;
    if output.size()[1] == patches {
        return Ok((output, None));
    }
    let mut parts = output.split_with_sizes([patches, tokens], 1).into_iter();
    let image = parts.next().expect("two parts");
    Ok((image, parts.next()))
}

/// A block, which a panic in a forward pass leaves as it is.
fn lock(block: &Mutex<Block>) -> MutexGuard<'_, Block> {
    block.lock().unwrap_or_else(PoisonError::into_inner)
}
