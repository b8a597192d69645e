//! BERT as a decoder.

use super::head::TiedEmbedding;
use super::{DecoderSizes, TextDecoder, TextDecoderSpec};
use crate::Result;
use crate::config::check_tower;
use mm_core::Precision;
use mm_core::nn::{
    Activation, BlockConfig, BlockInit, BlockNames, Embedding, LayerNorm, Linear, NormOrder, TowerSpec,
    Transformer, parameter, transformer_depth,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path};

/// The sizes of a [`BertDecoder`], named as in a Hugging Face `config.json`. Defaults are those of BLIP's
/// captioning models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BertDecoderConfig {
    /// Rows of the word embedding.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width between the MLP's two layers.
    pub intermediate_size: i64,
    /// Number of transformer blocks.
    pub num_hidden_layers: i64,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: i64,
    /// The context length: rows of the position embedding.
    pub max_position_embeddings: i64,
    /// Rows of the segment embedding, of which the first is used; 0 for a decoder without one, as BLIP's.
    pub type_vocab_size: i64,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`]. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

/// Standard deviation of BERT's initial weights.
pub(crate) const INIT_STD: f64 = 0.02;

impl Default for BertDecoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30524,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 512,
            type_vocab_size: 0,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            gradient_checkpointing: false,
        }
    }
}

impl BertDecoderConfig {
    pub(crate) fn block_config(&self, context_width: Option<i64>) -> BlockConfig {
        BlockConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            mlp_width: self.intermediate_size,
            activation: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            norm_order: NormOrder::Post,
            layers: self.num_hidden_layers,
            init: BlockInit::Normal(INIT_STD),
            context_width,
            gradient_checkpointing: self.gradient_checkpointing,
            ..BlockConfig::default()
        }
    }
}

impl TowerSpec for BertDecoderConfig {
    fn describe(&self) -> String {
        let (layers, width, heads) = (self.num_hidden_layers, self.hidden_size, self.num_attention_heads);
        let (vocabulary, positions) = (self.vocab_size, self.max_position_embeddings);
        format!(
            "BERT decoder: {layers} blocks, width {width}, {heads} heads; {vocabulary} ids, \
             {positions} positions"
        )
    }

    fn blocks(&self) -> usize {
        self.num_hidden_layers as usize
    }

    fn depth(&self, name: &str) -> usize {
        transformer_depth(name, "bert.encoder.layer", self.blocks(), &["bert.embeddings."])
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        name != "bert.embeddings.position_embeddings.weight"
    }

    fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }
}

impl TextDecoderSpec for BertDecoderConfig {
    fn build(&self, path: &Path, context_width: Option<i64>) -> Result<Box<dyn TextDecoder>> {
        Ok(Box::new(BertDecoder::new(path, self, context_width)?))
    }

    fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size.max(1)),
        ];
        let (layers, heads) = (self.num_hidden_layers, self.num_attention_heads);
        check_tower(&sizes, layers, self.hidden_size, heads, self.layer_norm_eps)
    }

    fn width(&self) -> i64 {
        self.hidden_size
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

/// BERT (Devlin et al. 2019) with a causal mask and, over the states of an encoder, cross-attention: the text
/// decoder of BLIP (Li et al. 2022, section 3.1). Parameter names are those of transformers'
/// `BlipTextLMHeadModel` and `BertLMHeadModel`.
#[derive(Debug)]
pub struct BertDecoder {
    word_embeddings: TiedEmbedding,
    position_embeddings: Embedding,
    token_type_embeddings: Option<Embedding>,
    layer_norm: LayerNorm,
    encoder: Transformer,
    transform: Linear,
    transform_act: Activation,
    transform_norm: LayerNorm,
    sizes: DecoderSizes,
}

impl BertDecoder {
    /// Creates the decoder's parameters below `path`, initialized as in BERT.
    ///
    /// # Errors
    /// As [`TextDecoderSpec::validate`].
    pub fn new(path: &Path, config: &BertDecoderConfig, context_width: Option<i64>) -> Result<Self> {
        config.validate()?;
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let (bert, head) = (path / "bert", path / "cls" / "predictions");
        let embeddings = &bert / "embeddings";
        let table = |name: &str, rows| Embedding::new(&(&embeddings / name), rows, width, INIT_STD);
        let word_embeddings = table("word_embeddings", config.vocab_size);
        let bias = parameter(&head, "bias", &[config.vocab_size], Init::Const(0.0));
        let has_types = config.type_vocab_size > 0;
        let block_config = config.block_config(context_width);
        let transform = &head / "transform";
        Ok(Self {
            word_embeddings: TiedEmbedding::new(word_embeddings, Some(bias)),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            token_type_embeddings: has_types.then(|| table("token_type_embeddings", config.type_vocab_size)),
            layer_norm: LayerNorm::new(&(&embeddings / "LayerNorm"), width, eps),
            encoder: Transformer::new(&(&bert / "encoder" / "layer"), &block_config, &BlockNames::BERT),
            transform: Linear::new(&(&transform / "dense"), width, width, INIT_STD),
            transform_act: config.hidden_act,
            transform_norm: LayerNorm::new(&(&transform / "LayerNorm"), width, eps),
            sizes: DecoderSizes {
                vocab_size: config.vocab_size,
                max_length: config.max_position_embeddings,
                width,
            },
        })
    }
}

impl TextDecoder for BertDecoder {
    fn sizes(&self) -> DecoderSizes {
        self.sizes
    }

    fn token_embeddings(&self) -> &Embedding {
        self.word_embeddings.table()
    }

    fn embed(&self, vectors: &Tensor, positions: &Tensor) -> Tensor {
        let mut x = vectors + self.position_embeddings.forward(positions);
        if let Some(types) = &self.token_type_embeddings {
            x += types.first(1);
        }
        self.layer_norm.forward(&x)
    }

    fn blocks(&self) -> &Transformer {
        &self.encoder
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        let x = self.transform_act.forward(&self.transform.forward(hidden));
        self.word_embeddings.logits(&self.transform_norm.forward(&x))
    }

    fn pack(&mut self, precision: Precision) {
        self.word_embeddings.pack(precision);
        self.position_embeddings.pack(precision);
        self.token_type_embeddings.iter_mut().for_each(|types| types.pack(precision));
        self.layer_norm.pack(precision);
        self.encoder.pack(precision);
        self.transform.pack(precision);
        self.transform_norm.pack(precision);
    }
}
