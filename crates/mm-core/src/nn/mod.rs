//! The layers of all towers and decoders.
//!
//! A layer is a plain struct, created from a [`tch::nn::Path`] and its sizes, with a `forward`. Parameter
//! names are those of the Hugging Face checkpoints, except that projections of the same input are one matrix
//! product: queries, keys and values of self-attention are `in_proj`, keys and values of cross-attention and
//! of grouped attention `kv_proj`. [`crate::checkpoint`] splits and joins them at the file.
//!
//! An encoder or a decoder is a [`Transformer`] of [`Block`]s, made from a [`BlockConfig`] and the
//! [`BlockNames`] of its family. With `context_width` its blocks have cross-attention, and with a
//! [`KeyValueCache`] it decodes step by step.
//!
//! Every layer that holds a [`Linear`] also has a `pack`: it readies the layer for inference in a
//! [`Precision`](crate::Precision), with weights laid out once for oneDNN. A packed layer cannot be trained.

mod activation;
mod attention;
mod batch_norm;
mod block;
mod block_config;
mod conv;
mod dropout;
mod feed_forward;
mod gated_mlp;
mod group_norm;
mod linear;
mod mlp;
mod norm;
mod parameter;
mod patch;
mod quantize;
mod rotary;
mod tower;
mod transformer;

pub use activation::Activation;
pub use attention::{Attention, AttentionMask, KeyValues};
pub use batch_norm::{BatchNorm, Processes, over_processes};
pub use block::{Block, Context};
pub use block_config::{
    BlockConfig, BlockInit, BlockNames, CrossAttentionNames, GroupedQueries, MlpKind, NormKind, NormOrder,
};
pub use conv::{Conv2d, Conv2dConfig, channels_last};
pub use dropout::Dropout;
pub(crate) use dropout::dropout;
pub use gated_mlp::GatedMlp;
pub use group_norm::GroupNorm;
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::{Embedding, LayerNorm, Norm, RmsNorm};
pub use parameter::{buffer, matrices_in, parameter, shapes_only, take_frozen, uninitialized};
pub use patch::PatchEmbedding;
pub use quantize::quantize_rows;
pub use rotary::{RopeConfig, RopeScaling, Rotary, RotaryTable};
pub use tower::{TowerSpec, transformer_depth};
pub use transformer::{KeyValueCache, Transformer};
