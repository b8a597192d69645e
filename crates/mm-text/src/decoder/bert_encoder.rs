//! BERT as an encoder of texts that reads other states, such as an image's.

use super::bert::INIT_STD;
use super::{BertDecoderConfig, TextDecoderSpec};
use crate::{Result, TokenBatch};
use mm_core::Precision;
use mm_core::nn::{AttentionMask, BlockNames, Context, Embedding, LayerNorm, Transformer};
use tch::Tensor;
use tch::nn::Path;

/// BERT (Devlin et al. 2019) with cross-attention in every block and without a causal mask: the
/// image-grounded text encoder of BLIP (Li et al. 2022, section 3.1). Parameter names are those of
/// transformers' `BlipTextModel` without its pooler.
#[derive(Debug)]
pub struct BertEncoder {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    layer_norm: LayerNorm,
    encoder: Transformer,
}

impl BertEncoder {
    /// Creates the encoder's parameters below `path`, initialized as in BERT, for states of width
    /// `context_width`. Sizes are those of the decoder that it stands beside; it has no segment embedding.
    ///
    /// # Errors
    /// As [`TextDecoderSpec::validate`].
    pub fn new(path: &Path, config: &BertDecoderConfig, context_width: i64) -> Result<Self> {
        config.validate()?;
        let (width, embeddings) = (config.hidden_size, path / "embeddings");
        let table = |name: &str, rows| Embedding::new(&(&embeddings / name), rows, width, INIT_STD);
        let blocks = config.block_config(Some(context_width));
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            layer_norm: LayerNorm::new(&(&embeddings / "LayerNorm"), width, config.layer_norm_eps),
            encoder: Transformer::new(&(path / "encoder" / "layer"), &blocks, &BlockNames::BERT),
        })
    }

    /// Maps texts `[B, L]`, L within the table of positions, to `[B, L, hidden_size]`. B is a multiple of the
    /// number of contexts, as in [`Context`].
    pub fn forward(&self, texts: &TokenBatch, context: &Context) -> Tensor {
        let mask = AttentionMask::padding_if_any(&texts.attention_mask);
        self.encoder.forward_with_context(self.embed(&texts.input_ids), &mask, context)
    }

    /// As [`BertEncoder::forward`], also giving the cross-attention weights of each block `[B, heads, L, S]`.
    pub fn forward_with_context_weights(
        &self,
        texts: &TokenBatch,
        context: &Context,
    ) -> (Tensor, Vec<Tensor>) {
        let mask = AttentionMask::padding_if_any(&texts.attention_mask);
        self.encoder.forward_with_context_weights(self.embed(&texts.input_ids), &mask, context)
    }

    /// Maps `input_ids` `[B, L]` to the input of the blocks `[B, L, hidden_size]`.
    fn embed(&self, input_ids: &Tensor) -> Tensor {
        let positions = self.position_embeddings.first(input_ids.size()[1]);
        self.layer_norm.forward(&(self.word_embeddings.forward(input_ids) + positions))
    }

    /// Prepares for inference in `precision`. A packed encoder cannot be trained.
    pub fn pack(&mut self, precision: Precision) {
        self.word_embeddings.pack(precision);
        self.position_embeddings.pack(precision);
        self.layer_norm.pack(precision);
        self.encoder.pack(precision);
    }
}
