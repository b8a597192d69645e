//! The decoder of one generation, which reads images in the prompts.

use super::model::Vlm;
use mm_core::nn::Context;
use mm_text::decoder::{Decoder, DecoderCache, TextDecoder, left_padded};
use std::cell::RefCell;
use tch::Tensor;

/// A [`Vlm`]'s decoder with the vectors of the images that its prompts are about. It is made by
/// [`Vlm::with_features`] for the prompts of one generation.
#[derive(Debug)]
pub struct VlmDecoder<'a> {
    model: &'a Vlm,
    /// `[T, tokens, D]`; taken by the first step.
    features: RefCell<Option<Tensor>>,
}

impl<'a> VlmDecoder<'a> {
    /// `features` are as many as the prompts have placeholders.
    pub(super) fn new(model: &'a Vlm, features: Option<Tensor>) -> Self {
        Self { model, features: RefCell::new(features) }
    }
}

impl Decoder for VlmDecoder<'_> {
    fn vocab_size(&self) -> i64 {
        self.model.decoder().sizes().vocab_size
    }

    fn max_length(&self) -> i64 {
        self.model.decoder().sizes().max_length
    }

    fn new_cache(&self, capacity: i64, context: Option<&Context>) -> DecoderCache {
        self.model.decoder().new_cache(capacity, context)
    }

    fn start(&self, prompts: &[&[u32]], cache: &mut DecoderCache) -> Tensor {
        let (tokens, padding) = left_padded(prompts); // with 0, which is no placeholder
        cache.set_padding(padding);
        let features = self.features.take();
        let vectors = self.model.merge_counted(&tokens.to_device(cache.device), features.as_ref());
        self.model.decoder().step_vectors(&vectors, cache)
    }

    fn step(&self, tokens: &Tensor, cache: &mut DecoderCache) -> Tensor {
        self.model.decoder().step(tokens, cache)
    }
}
