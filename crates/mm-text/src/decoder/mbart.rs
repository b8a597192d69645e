//! MBart's decoder.

use super::head::TiedEmbedding;
use super::{DecoderSizes, TextDecoder, TextDecoderSpec};
use crate::config::check_tower;
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::nn::{
    Activation, BlockConfig, BlockInit, BlockNames, Embedding, LayerNorm, NormOrder, TowerSpec, Transformer,
    transformer_depth,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

/// The sizes of a [`MBartDecoder`], named as in a Hugging Face `config.json`. Defaults are those of Donut's
/// decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MBartDecoderConfig {
    /// Rows of the token embedding.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub d_model: i64,
    /// Number of transformer blocks.
    pub decoder_layers: i64,
    /// Attention heads; divides `d_model`.
    pub decoder_attention_heads: i64,
    /// Width between the MLP's two layers.
    pub decoder_ffn_dim: i64,
    /// The context length; the table of positions has two rows more, which are never used.
    pub max_position_embeddings: i64,
    /// The MLP's activation.
    pub activation_function: Activation,
    /// Whether token embeddings are multiplied by the root of `d_model`.
    pub scale_embedding: bool,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`]. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

/// The row of the table of positions that the first token has.
const FIRST_POSITION: i64 = 2;

/// Epsilon of all layer norms, which no config changes.
const NORM_EPS: f64 = 1e-5;

/// Standard deviation of the initial weights of MBart, and its width.
const INIT_STD: f64 = 0.02;
const INIT_WIDTH: f64 = 1024.0;

/// MBart's layers.
const NAMES: BlockNames = BlockNames {
    attention_norm: "self_attn_layer_norm",
    fc1: "fc1",
    fc2: "fc2",
    mlp_norm: "final_layer_norm",
    ..BlockNames::CLIP
};

impl Default for MBartDecoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 57525,
            d_model: 1024,
            decoder_layers: 4,
            decoder_attention_heads: 16,
            decoder_ffn_dim: 4096,
            max_position_embeddings: 1536,
            activation_function: Activation::Gelu,
            scale_embedding: true,
            gradient_checkpointing: false,
        }
    }
}

impl MBartDecoderConfig {
    /// Standard deviation of the initial weights: MBart's at its width, and larger in narrower decoders,
    /// whose cross-attention would otherwise begin almost at zero.
    fn init_std(&self) -> f64 {
        INIT_STD * (INIT_WIDTH / self.d_model as f64).sqrt()
    }

    fn block_config(&self, context_width: Option<i64>) -> BlockConfig {
        BlockConfig {
            width: self.d_model,
            heads: self.decoder_attention_heads,
            mlp_width: self.decoder_ffn_dim,
            activation: self.activation_function,
            layer_norm_eps: NORM_EPS,
            norm_order: NormOrder::Pre,
            layers: self.decoder_layers,
            init: BlockInit::Normal(self.init_std()),
            context_width,
            gradient_checkpointing: self.gradient_checkpointing,
            ..BlockConfig::default()
        }
    }
}

impl TowerSpec for MBartDecoderConfig {
    fn describe(&self) -> String {
        let (layers, width, heads) = (self.decoder_layers, self.d_model, self.decoder_attention_heads);
        let (vocabulary, positions) = (self.vocab_size, self.max_position_embeddings);
        format!(
            "MBart decoder: {layers} blocks, width {width}, {heads} heads; {vocabulary} ids, \
             {positions} positions"
        )
    }

    fn blocks(&self) -> usize {
        self.decoder_layers as usize
    }

    fn depth(&self, name: &str) -> usize {
        let inputs = ["embed_tokens.", "embed_positions.", "layernorm_embedding."];
        let name = name.strip_prefix("model.decoder.").unwrap_or(name);
        transformer_depth(name, "layers", self.blocks(), &inputs)
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        name != "model.decoder.embed_positions.weight"
    }

    fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }
}

impl TextDecoderSpec for MBartDecoderConfig {
    fn build(&self, path: &Path, context_width: Option<i64>) -> Result<Box<dyn TextDecoder>> {
        Ok(Box::new(MBartDecoder::new(path, self, context_width)?))
    }

    fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("decoder_attention_heads", self.decoder_attention_heads),
            ("decoder_ffn_dim", self.decoder_ffn_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        mm_core::hf::check_sizes(&sizes)
            .and_then(|()| mm_core::hf::check_layers("decoder_layers", self.decoder_layers))
            .map_err(Error::Config)?;
        let (width, heads) = (self.d_model, self.decoder_attention_heads);
        if width % heads != 0 {
            let problem = format!("d_model {width} is no multiple of decoder_attention_heads {heads}");
            return Err(Error::Config(problem));
        }
        check_tower(&sizes, self.decoder_layers, width, heads, NORM_EPS)
    }

    fn width(&self) -> i64 {
        self.d_model
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn set_vocab_size(&mut self, vocab_size: i64) {
        self.vocab_size = vocab_size;
    }

    fn max_length(&self) -> i64 {
        self.max_position_embeddings
    }
}

/// The decoder of MBart (Liu et al. 2020), which Donut reads pages with: a causal transformer that normalizes
/// before each sub-layer, its embeddings and its output, with learned positions, cross-attention and a tied
/// output layer. Parameter names are those of transformers' `MBartForCausalLM`.
#[derive(Debug)]
pub struct MBartDecoder {
    embed_tokens: TiedEmbedding,
    embed_positions: Embedding,
    layernorm_embedding: LayerNorm,
    layers: Transformer,
    layer_norm: LayerNorm,
    /// Of the token embeddings.
    scale: f64,
    sizes: DecoderSizes,
}

impl MBartDecoder {
    /// Creates the decoder's parameters below `path`, with cross-attention over states of width
    /// `context_width` where it is given.
    ///
    /// # Errors
    /// As [`TextDecoderSpec::validate`].
    pub fn new(path: &Path, config: &MBartDecoderConfig, context_width: Option<i64>) -> Result<Self> {
        config.validate()?;
        let (width, std) = (config.d_model, config.init_std());
        let path = path / "model" / "decoder";
        let norm = |name: &str| LayerNorm::new(&(&path / name), width, NORM_EPS);
        let embed_tokens = Embedding::new(&(&path / "embed_tokens"), config.vocab_size, width, std);
        let positions = config.max_position_embeddings + FIRST_POSITION;
        let embed_positions = Embedding::new(&(&path / "embed_positions"), positions, width, std);
        Ok(Self {
            embed_tokens: TiedEmbedding::new(embed_tokens, None),
            embed_positions,
            layernorm_embedding: norm("layernorm_embedding"),
            layers: Transformer::new(&(&path / "layers"), &config.block_config(context_width), &NAMES),
            layer_norm: norm("layer_norm"),
            scale: if config.scale_embedding { (width as f64).sqrt() } else { 1.0 },
            sizes: DecoderSizes {
                vocab_size: config.vocab_size,
                max_length: config.max_position_embeddings,
                width,
            },
        })
    }
}

impl TextDecoder for MBartDecoder {
    fn sizes(&self) -> DecoderSizes {
        self.sizes
    }

    fn token_embeddings(&self) -> &Embedding {
        self.embed_tokens.table()
    }

    fn embed(&self, vectors: &Tensor, positions: &Tensor) -> Tensor {
        let positions = self.embed_positions.forward(&(positions + FIRST_POSITION));
        self.layernorm_embedding.forward(&(vectors * self.scale + positions))
    }

    fn blocks(&self) -> &Transformer {
        &self.layers
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        self.embed_tokens.logits(&self.layer_norm.forward(hidden))
    }

    fn pack(&mut self, precision: Precision) {
        self.embed_tokens.pack(precision);
        self.embed_positions.pack(precision);
        self.layernorm_embedding.pack(precision);
        self.layers.pack(precision);
        self.layer_norm.pack(precision);
    }
}
