//! Decoders: transformers that predict the next token of a text.
//!
//! [`Decoder`] is what [`generate`](crate::generate) needs of one, a call a step. A [`TextDecoder`] is made
//! of [`mm_core::nn`]'s layers: training gets the logits of all positions from it, and every `TextDecoder` is
//! a [`Decoder`]. A new family is one file with a config and a `TextDecoder`, and one line in
//! [`TextDecoderConfig`].

mod bert;
mod bert_encoder;
mod bert_hf;
mod cache;
mod config;
mod folder;
mod gpt2;
mod gpt2_hf;
mod head;
mod labels;
mod llama;
mod llama_config;
mod llama_hf;
mod mbart;
mod mbart_hf;

pub use bert::{BertDecoder, BertDecoderConfig};
pub use bert_encoder::BertEncoder;
pub use cache::DecoderCache;
pub use config::{TextDecoderConfig, TextDecoderSpec};
pub use folder::{GENERATION_CONFIG_FILE, SpecialTokens, drop_copies, token_id};
pub use gpt2::{Gpt2, Gpt2Config};
pub use gpt2_hf::GPT2_LAYOUT;
pub use labels::{CaptionTokens, NextTokens};
pub use llama::Llama;
pub use llama_config::{LlamaConfig, LlamaVariant};
pub use mbart::{MBartDecoder, MBartDecoderConfig};

use mm_core::Precision;
use mm_core::nn::{AttentionMask, Context, Embedding, Transformer};
use std::fmt::Debug;
use tch::{Kind, Tensor};

/// A decoder as generation uses it.
pub trait Decoder {
    /// The number of logits.
    fn vocab_size(&self) -> i64;

    /// The largest number of tokens of a text, prompt included.
    fn max_length(&self) -> i64;

    /// Whether the decoder has something to read before the prompt, which may then be empty.
    fn has_prefix(&self) -> bool {
        false
    }

    /// An empty cache for `capacity` tokens a row. The keys and values of `context`, which a decoder with
    /// cross-attention reads, are computed here, once for all steps and all rows.
    fn new_cache(&self, capacity: i64, context: Option<&Context>) -> DecoderCache;

    /// The first step: appends the prompts, one a row and of any lengths, and gives the logits
    /// `[R, vocab_size]`, f32, of the token after each. They are padded on the left, and the padding is
    /// hidden.
    fn start(&self, prompts: &[&[u32]], cache: &mut DecoderCache) -> Tensor {
        let (tokens, padding) = left_padded(prompts);
        cache.set_padding(padding);
        self.step(&tokens, cache)
    }

    /// Appends `tokens` `[R, L]` (i64) and gives the logits `[R, vocab_size]`, f32, of the token after them.
    /// Where the cache has G contexts, rows `i * R / G` to `(i + 1) * R / G` read context `i`.
    fn step(&self, tokens: &Tensor, cache: &mut DecoderCache) -> Tensor;
}

/// The sizes of a [`TextDecoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSizes {
    /// The number of logits.
    pub vocab_size: i64,
    /// The largest number of tokens of a text.
    pub max_length: i64,
    /// D, the width of the token embeddings.
    pub width: i64,
}

/// A decoder made of embeddings, a stack of blocks and a head.
pub trait TextDecoder: Debug + Send {
    /// Its sizes.
    fn sizes(&self) -> DecoderSizes;

    /// The token embeddings, `[vocab_size, D]`.
    fn token_embeddings(&self) -> &Embedding;

    /// Maps token embeddings `[R, L, D]`, or vectors in their place such as a prefix, at `positions` `[L]` or
    /// `[R, L]` to the input of the blocks.
    fn embed(&self, vectors: &Tensor, positions: &Tensor) -> Tensor;

    /// The blocks.
    fn blocks(&self) -> &Transformer;

    /// Maps outputs of the blocks `[..., D]` to logits `[..., vocab_size]`, in the type of the weights.
    fn logits(&self, hidden: &Tensor) -> Tensor;

    /// Prepares for inference in `precision`. A packed decoder cannot be trained.
    fn pack(&mut self, precision: Precision);

    /// The embeddings `[..., D]` of `input_ids` `[...]`.
    fn embed_tokens(&self, input_ids: &Tensor) -> Tensor {
        self.token_embeddings().forward(input_ids)
    }

    /// The outputs of the blocks `[B, L, D]` for `vectors` `[B, L, D]` in the place of token embeddings, each
    /// position seeing those before it. `context` is given if the decoder has cross-attention. Padding on the
    /// right changes no other position.
    fn forward_vectors(&self, vectors: &Tensor, context: Option<&Context>) -> Tensor {
        let x = self.embed(vectors, &first_positions(vectors));
        match context {
            Some(context) => self.blocks().forward_with_context(x, &AttentionMask::causal(), context),
            None => self.blocks().forward(x, &AttentionMask::causal()),
        }
    }

    /// [`TextDecoder::forward_vectors`] for `input_ids` `[B, L]`.
    fn forward(&self, input_ids: &Tensor, context: Option<&Context>) -> Tensor {
        self.forward_vectors(&self.embed_tokens(input_ids), context)
    }

    /// As [`TextDecoder::forward`], also giving the cross-attention weights of each block `[B, heads, L, S]`.
    fn forward_with_context_weights(&self, input_ids: &Tensor, context: &Context) -> (Tensor, Vec<Tensor>) {
        let vectors = self.embed_tokens(input_ids);
        let x = self.embed(&vectors, &first_positions(&vectors));
        self.blocks().forward_with_context_weights(x, &AttentionMask::causal(), context)
    }

    /// [`Decoder::step`] for `vectors` `[R, L, D]` in the place of token embeddings.
    fn step_vectors(&self, vectors: &Tensor, cache: &mut DecoderCache) -> Tensor {
        let length = vectors.size()[1];
        let x = self.embed(vectors, &cache.positions(length));
        let mask = cache.mask(length);
        let hidden = self.blocks().forward_cached(x, &mask, &mut cache.key_values);
        self.logits(&hidden.select(1, -1)).to_kind(Kind::Float)
    }
}

impl<T: TextDecoder + ?Sized> Decoder for T {
    fn vocab_size(&self) -> i64 {
        self.sizes().vocab_size
    }

    fn max_length(&self) -> i64 {
        self.sizes().max_length
    }

    fn new_cache(&self, capacity: i64, context: Option<&Context>) -> DecoderCache {
        DecoderCache::new(
            self.blocks().new_cache(capacity, context),
            self.token_embeddings().weight().device(),
        )
    }

    fn step(&self, tokens: &Tensor, cache: &mut DecoderCache) -> Tensor {
        self.step_vectors(&self.embed_tokens(&tokens.to_device(cache.device)), cache)
    }
}

/// `0..L` for `vectors` `[B, L, D]`.
fn first_positions(vectors: &Tensor) -> Tensor {
    Tensor::arange(vectors.size()[1], (Kind::Int64, vectors.device()))
}

/// `rows` as one tensor `[R, longest]` (i64), padded with 0 on the left, and the padding of each row.
pub fn left_padded(rows: &[&[u32]]) -> (Tensor, Vec<i64>) {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut ids = vec![0i64; rows.len() * longest];
    let mut padding = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        padding.push((longest - row.len()) as i64);
        let start = index * longest + longest - row.len();
        for (id, &token) in ids[start..].iter_mut().zip(*row) {
            *id = i64::from(token);
        }
    }
    (Tensor::from_slice(&ids).view([rows.len() as i64, longest as i64]), padding)
}
