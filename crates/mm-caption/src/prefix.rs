//! ClipCap's mapping network and the decoder behind its prefix (Mokady et al. 2021).

use crate::config::PrefixConfig;
use mm_core::Precision;
use mm_core::nn::{Context, Linear};
use mm_text::decoder::{Decoder, DecoderCache, TextDecoder};
use std::cell::RefCell;
use tch::nn::Path;
use tch::{Kind, Tensor};

/// From the pooled output of an image tower to the vectors before a caption: CLIP's projection, then two
/// linear layers with tanh between (Mokady et al. 2021, section 3.2). Parameter names are those of CLIP and of
/// the authors' code.
#[derive(Debug)]
pub(crate) struct PrefixMapper {
    projection: Linear,
    first: Linear,
    second: Linear,
    length: i64,
    width: i64,
    is_normalized: bool,
}

impl PrefixMapper {
    /// Creates the parameters below `path`, from a pooled image of width `pooled` to vectors of `width`.
    pub fn new(path: &Path, config: &PrefixConfig, pooled: i64, width: i64) -> Self {
        let std = |inputs: i64| (3.0 * inputs as f64).powf(-0.5); // PyTorch's default for linear layers
        let (projected, outputs) = (config.projection, width * config.length);
        let (inner, model) = (outputs / 2, path / "clip_project" / "model");
        Self {
            projection: Linear::without_bias(&(path / "visual_projection"), pooled, projected, std(pooled)),
            first: Linear::new(&(&model / 0), projected, inner, std(projected)),
            second: Linear::new(&(&model / 2), inner, outputs, std(inner)),
            length: config.length,
            width,
            is_normalized: config.is_normalized,
        }
    }

    /// Maps the pooled image `[B, pooled]` to `[B, length, width]`.
    pub fn forward(&self, pooled: &Tensor) -> Tensor {
        let mut x = self.projection.forward(pooled);
        if self.is_normalized {
            x = &x / x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true);
        }
        let x = self.second.forward(&self.first.forward(&x).tanh());
        x.view([-1, self.length, self.width])
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        [&mut self.projection, &mut self.first, &mut self.second]
            .into_iter()
            .for_each(|linear| linear.pack(precision));
    }
}

/// A decoder that reads a prefix of vectors before each prompt.
pub(crate) struct PrefixedDecoder<'a> {
    decoder: &'a dyn TextDecoder,
    /// `[R, P, D]`; taken by the first step.
    prefix: RefCell<Option<Tensor>>,
    length: i64,
}

impl<'a> PrefixedDecoder<'a> {
    /// `decoder` after `prefix` `[R, P, D]`, a row for each prompt.
    pub fn new(decoder: &'a dyn TextDecoder, prefix: Tensor) -> Self {
        Self { decoder, length: prefix.size()[1], prefix: RefCell::new(Some(prefix)) }
    }
}

impl Decoder for PrefixedDecoder<'_> {
    fn vocab_size(&self) -> i64 {
        self.decoder.sizes().vocab_size
    }

    fn max_length(&self) -> i64 {
        self.decoder.sizes().max_length - self.length
    }

    fn has_prefix(&self) -> bool {
        true
    }

    fn new_cache(&self, capacity: i64, context: Option<&Context>) -> DecoderCache {
        self.decoder.new_cache(self.length + capacity, context)
    }

    fn start(&self, prompts: &[&[u32]], cache: &mut DecoderCache) -> Tensor {
        let prefix = self.prefix.take().expect("a prefix is read once");
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0) as i64;
        let mut padding = Vec::with_capacity(prompts.len());
        let mut rows = Vec::with_capacity(prompts.len());
        for (row, prompt) in (0..).zip(prompts) {
            // Padding comes first, then the prefix, then the prompt.
            let ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
            let ids = Tensor::from_slice(&ids).to_device(cache.device);
            let tokens = self.decoder.embed_tokens(&ids).to_kind(prefix.kind()); // [L, D]
            let missing = longest - prompt.len() as i64;
            let row = Tensor::cat(&[prefix.get(row), tokens], 0).constant_pad_nd([0, 0, missing, 0]);
            padding.push(missing);
            rows.push(row);
        }
        cache.set_padding(padding);
        self.decoder.step_vectors(&Tensor::stack(&rows, 0), cache).to_kind(Kind::Float)
    }

    fn step(&self, tokens: &Tensor, cache: &mut DecoderCache) -> Tensor {
        self.decoder.step(tokens, cache)
    }
}
