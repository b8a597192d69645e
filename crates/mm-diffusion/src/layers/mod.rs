//! The layers that the U-Net and the autoencoder share, with diffusers' parameter names.

mod attention;
mod resample;
mod resnet;
mod time;

pub(crate) use attention::{SpatialTransformer, SpatialTransformerConfig, to_rows};
pub(crate) use resample::{Downsample, Upsample};
pub(crate) use resnet::{ResnetBlock, ResnetConfig};
pub(crate) use time::{SiluMlp, TimeEmbedding, sinusoid};

use mm_core::checkpoint::{TensorLayout, hf_names};
use mm_core::nn::KeyValues;
use tch::Tensor;

/// The layout of diffusers' U-Nets and autoencoders: queries, keys and values of self-attention are apart,
/// and so are keys and values of cross-attention.
pub(crate) const LAYOUT: TensorLayout = TensorLayout { names, is_transposed: |_| false };

fn names(name: &str) -> Vec<String> {
    let split = |joined: &str, parts: &[&str]| -> Vec<String> {
        parts.iter().map(|part| name.replacen(joined, part, 1)).collect()
    };
    if name.contains(".in_proj.") {
        split(".in_proj.", &[".to_q.", ".to_k.", ".to_v."])
    } else if name.contains(".kv_proj.") {
        split(".kv_proj.", &[".to_k.", ".to_v."])
    } else if name.contains(".q_proj.") {
        split(".q_proj.", &[".to_q."])
    } else {
        hf_names(name)
    }
}

/// What the layers of one forward pass read beside their input.
pub(crate) struct Conditions<'a> {
    /// SiLU of the time embedding, `[B, D]`.
    pub time: Tensor,
    /// Keys and values of the text for the cross-attentions to come, in the order of the forward pass.
    pub text: std::slice::Iter<'a, KeyValues>,
    /// The weights `[B, heads, H * W, L]` of each cross-attention so far, where they are asked for.
    pub weights: Option<Vec<Tensor>>,
}
