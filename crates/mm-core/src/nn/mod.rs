//! The layers every tower is made of, once.
//!
//! A layer is a plain struct made from a [`tch::nn::Path`] and its sizes, with a `forward`. Parameter names
//! are those of the Hugging Face checkpoints, but for one: the query, key and value projections are kept as a
//! single `in_proj` (one matrix product instead of three); [`crate::checkpoint`] splits and joins it at the
//! file.
//!
//! Every layer that holds a [`Linear`] also has a `pack`: it readies the layer for inference in a
//! [`Precision`](crate::Precision), with weights laid out once for oneDNN. A packed layer cannot be trained.

mod activation;
mod attention;
mod batch_norm;
mod linear;
mod norm;
mod parameter;
mod patch;
mod quantise;
mod transformer;

pub use activation::Activation;
pub use attention::{Attention, AttentionMask};
pub use batch_norm::{BatchNorm, Processes, over_processes};
pub use linear::Linear;
pub use norm::{Embedding, LayerNorm};
pub use parameter::{buffer, parameter, shapes_only, uninitialised};
pub use patch::PatchEmbedding;
pub use quantise::quantise_rows;
pub use transformer::{Block, BlockConfig, Mlp, NormOrder, Transformer};
