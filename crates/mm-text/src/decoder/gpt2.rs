//! GPT-2.

use super::head::TiedEmbedding;
use super::{DecoderSizes, TextDecoder, TextDecoderSpec};
use crate::config::check_tower;
use crate::{Error, Result};
use mm_core::Precision;
use mm_core::hf::check_sizes;
use mm_core::nn::{
    Activation, BlockConfig, BlockInit, BlockNames, Embedding, LayerNorm, NormOrder, TowerSpec, Transformer,
    transformer_depth,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

/// The sizes of a [`Gpt2`], named as in a Hugging Face `config.json`. Defaults are GPT-2 small's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpt2Config {
    /// Rows of the token embedding.
    pub vocab_size: i64,
    /// The context length: rows of the position embedding.
    pub n_positions: i64,
    /// Width of the residual stream.
    pub n_embd: i64,
    /// Number of transformer blocks.
    pub n_layer: i64,
    /// Attention heads; divides `n_embd`.
    pub n_head: i64,
    /// Width between the MLP's two layers; none: four times `n_embd`.
    pub n_inner: Option<i64>,
    /// The MLP's activation.
    pub activation_function: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: f64,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`]. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

/// Standard deviation of the initial weights of GPT-2 small, and its width.
const INIT_STD: f64 = 0.02;
const INIT_WIDTH: f64 = 768.0;

impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: Activation::GeluPytorchTanh,
            layer_norm_epsilon: 1e-5,
            gradient_checkpointing: false,
        }
    }
}

impl Gpt2Config {
    /// Standard deviation of the initial weights: GPT-2's at its width, and larger in narrower decoders,
    /// whose cross-attention would otherwise begin almost at zero.
    fn init_std(&self) -> f64 {
        INIT_STD * (INIT_WIDTH / self.n_embd as f64).sqrt()
    }

    fn mlp_width(&self) -> i64 {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    fn block_config(&self, context_width: Option<i64>) -> BlockConfig {
        BlockConfig {
            width: self.n_embd,
            heads: self.n_head,
            mlp_width: self.mlp_width(),
            activation: self.activation_function,
            layer_norm_eps: self.layer_norm_epsilon,
            norm_order: NormOrder::Pre,
            layers: self.n_layer,
            init: BlockInit::Normal(self.init_std()),
            context_width,
            gradient_checkpointing: self.gradient_checkpointing,
            ..BlockConfig::default()
        }
    }
}

impl TowerSpec for Gpt2Config {
    fn describe(&self) -> String {
        let (layers, width, heads) = (self.n_layer, self.n_embd, self.n_head);
        let (vocabulary, positions) = (self.vocab_size, self.n_positions);
        format!(
            "GPT-2: {layers} blocks, width {width}, {heads} heads; {vocabulary} ids, {positions} positions"
        )
    }

    fn blocks(&self) -> usize {
        self.n_layer as usize
    }

    fn depth(&self, name: &str) -> usize {
        transformer_depth(name, "transformer.h", self.blocks(), &["transformer.wte.", "transformer.wpe."])
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        name != "transformer.wpe.weight"
    }

    fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }
}

impl TextDecoderSpec for Gpt2Config {
    fn build(&self, path: &Path, context_width: Option<i64>) -> Result<Box<dyn TextDecoder>> {
        Ok(Box::new(Gpt2::new(path, self, context_width)?))
    }

    fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_head", self.n_head),
            ("n_inner", self.mlp_width()),
        ];
        check_sizes(&sizes).map_err(Error::Config)?;
        if self.n_embd % self.n_head != 0 {
            let (width, heads) = (self.n_embd, self.n_head);
            return Err(Error::Config(format!("n_embd {width} is no multiple of n_head {heads}")));
        }
        check_tower(&sizes, self.n_layer, self.n_embd, self.n_head, self.layer_norm_epsilon)
    }

    fn width(&self) -> i64 {
        self.n_embd
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn set_vocab_size(&mut self, vocab_size: i64) {
        self.vocab_size = vocab_size;
    }

    fn max_length(&self) -> i64 {
        self.n_positions
    }
}

/// GPT-2 (Radford et al. 2019): a causal transformer with learned positions and a tied output layer, and with
/// cross-attention where it reads an encoder. Parameter names are those of transformers' `GPT2LMHeadModel`;
/// its files hold the transposed matrices ([`GPT2_LAYOUT`](super::GPT2_LAYOUT)).
#[derive(Debug)]
pub struct Gpt2 {
    wte: TiedEmbedding,
    wpe: Embedding,
    blocks: Transformer,
    ln_f: LayerNorm,
    sizes: DecoderSizes,
}

impl Gpt2 {
    /// Creates the decoder's parameters below `path`, with cross-attention over states of width
    /// `context_width` where it is given.
    ///
    /// # Errors
    /// As [`TextDecoderSpec::validate`].
    pub fn new(path: &Path, config: &Gpt2Config, context_width: Option<i64>) -> Result<Self> {
        config.validate()?;
        let (width, path, std) = (config.n_embd, path / "transformer", config.init_std());
        let wte = Embedding::new(&(&path / "wte"), config.vocab_size, width, std);
        let wpe = Embedding::new(&(&path / "wpe"), config.n_positions, width, std / 2.0);
        let blocks = Transformer::new(&(&path / "h"), &config.block_config(context_width), &BlockNames::GPT2);
        Ok(Self {
            wte: TiedEmbedding::new(wte, None),
            wpe,
            blocks,
            ln_f: LayerNorm::new(&(&path / "ln_f"), width, config.layer_norm_epsilon),
            sizes: DecoderSizes { vocab_size: config.vocab_size, max_length: config.n_positions, width },
        })
    }
}

impl TextDecoder for Gpt2 {
    fn sizes(&self) -> DecoderSizes {
        self.sizes
    }

    fn token_embeddings(&self) -> &Embedding {
        self.wte.table()
    }

    fn embed(&self, vectors: &Tensor, positions: &Tensor) -> Tensor {
        vectors + self.wpe.forward(positions)
    }

    fn blocks(&self) -> &Transformer {
        &self.blocks
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        self.wte.logits(&self.ln_f.forward(hidden))
    }

    fn pack(&mut self, precision: Precision) {
        self.wte.pack(precision);
        self.wpe.pack(precision);
        self.blocks.pack(precision);
        self.ln_f.pack(precision);
    }
}
