//! Decoders of Llama's form.

use super::head::TiedEmbedding;
use super::{DecoderSizes, LlamaConfig, TextDecoder, TextDecoderSpec};
use crate::Result;
use mm_core::Precision;
use mm_core::nn::{BlockNames, Embedding, Linear, RmsNorm, Transformer};
use tch::Tensor;
use tch::nn::Path;

/// Llama (Touvron et al. 2023) and Qwen2 (Yang et al. 2024): a causal transformer with rotary positions,
/// grouped queries, gated MLPs and root-mean-square norms, without cross-attention. Parameter names are those
/// of transformers' `LlamaForCausalLM`.
#[derive(Debug)]
pub struct Llama {
    output: OutputLayer,
    blocks: Transformer,
    norm: RmsNorm,
    sizes: DecoderSizes,
}

/// The token embeddings and the layer of the logits.
#[derive(Debug)]
enum OutputLayer {
    /// One matrix.
    Tied(TiedEmbedding),
    /// A matrix each.
    Own { embed_tokens: Embedding, lm_head: Linear },
}

impl Llama {
    /// Creates the decoder's parameters: the token embeddings, the blocks and the last norm below `body`
    /// (`model` in a text model), and the output layer at `head` (`lm_head`), unless it is tied.
    ///
    /// # Errors
    /// As [`TextDecoderSpec::validate`].
    pub fn new(body: &Path, head: &Path, config: &LlamaConfig) -> Result<Self> {
        config.validate()?;
        let (width, rows, std) = (config.hidden_size, config.vocab_size, config.initializer_range);
        let embed_tokens = Embedding::new(&(body / "embed_tokens"), rows, width, std);
        let blocks = Transformer::new(&(body / "layers"), &config.block_config(), &BlockNames::LLAMA);
        let output = if config.tie_word_embeddings {
            OutputLayer::Tied(TiedEmbedding::new(embed_tokens, None))
        } else {
            OutputLayer::Own { embed_tokens, lm_head: Linear::without_bias(head, width, rows, std) }
        };
        Ok(Self {
            output,
            blocks,
            norm: RmsNorm::new(&(body / "norm"), width, config.rms_norm_eps),
            sizes: DecoderSizes { vocab_size: rows, max_length: config.max_position_embeddings, width },
        })
    }
}

impl TextDecoder for Llama {
    fn sizes(&self) -> DecoderSizes {
        self.sizes
    }

    fn token_embeddings(&self) -> &Embedding {
        match &self.output {
            OutputLayer::Tied(tied) => tied.table(),
            OutputLayer::Own { embed_tokens, .. } => embed_tokens,
        }
    }

    /// The blocks turn queries and keys by their positions: nothing is added to the vectors.
    fn embed(&self, vectors: &Tensor, _positions: &Tensor) -> Tensor {
        vectors.shallow_clone()
    }

    fn blocks(&self) -> &Transformer {
        &self.blocks
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        let hidden = self.norm.forward(hidden);
        match &self.output {
            OutputLayer::Tied(tied) => tied.logits(&hidden),
            OutputLayer::Own { lm_head, .. } => lm_head.forward(&hidden),
        }
    }

    fn pack(&mut self, precision: Precision) {
        match &mut self.output {
            OutputLayer::Tied(tied) => tied.pack(precision),
            OutputLayer::Own { embed_tokens, lm_head } => {
                embed_tokens.pack(precision);
                lm_head.pack(TiedEmbedding::output_precision(precision));
            }
        }
        self.blocks.pack(precision);
        self.norm.pack(precision);
    }
}
