//! BERT as a text tower.

use crate::config::{check_tower, describe};
use crate::tower::{TextTower, TextTowerSpec};
use crate::{Result, TokenBatch, Tokenizer};
use mm_core::Precision;
use mm_core::nn::{
    Activation, AttentionMask, BlockConfig, BlockInit, BlockNames, Embedding, LayerNorm, Linear, NormOrder,
    TowerSpec, Transformer, transformer_depth,
};
use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// The pooling of a text's token outputs to one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BertPooling {
    /// The first token.
    #[default]
    Cls,
    /// The mean of all tokens without padding.
    Mean,
    /// The first token through BERT's `pooler` (a linear layer and tanh): transformers' `pooler_output`.
    Pooler,
}

impl BertPooling {
    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
            Self::Pooler => "pooler",
        }
    }
}

/// The sizes of a BERT, named as in a Hugging Face `config.json`. Defaults are bert-base-uncased's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BertConfig {
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
    /// Rows of the segment embedding. Texts here have one segment, so only the first row is used.
    pub type_vocab_size: i64,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// The pooling of tokens to one vector.
    pub pooling: BertPooling,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`]. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

/// Standard deviation of BERT's initial weights.
const INIT_STD: f64 = 0.02;

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            pooling: BertPooling::Cls,
            gradient_checkpointing: false,
        }
    }
}

impl BertConfig {
    /// Checks that a tower can be built.
    ///
    /// # Errors
    /// Names the first field that is out of range, with its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        let (layers, heads) = (self.num_hidden_layers, self.num_attention_heads);
        check_tower(&sizes, layers, self.hidden_size, heads, self.layer_norm_eps)
    }

    fn block_config(&self) -> BlockConfig {
        BlockConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            mlp_width: self.intermediate_size,
            activation: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            norm_order: NormOrder::Post,
            layers: self.num_hidden_layers,
            init: BlockInit::Normal(INIT_STD),
            gradient_checkpointing: self.gradient_checkpointing,
            ..BlockConfig::default()
        }
    }
}

impl TowerSpec for BertConfig {
    fn describe(&self) -> String {
        let family = format!("BERT, {} pooling", self.pooling.name());
        describe(&family, self, self.num_hidden_layers, self.hidden_size, self.num_attention_heads)
    }

    fn blocks(&self) -> usize {
        self.num_hidden_layers as usize
    }

    fn depth(&self, name: &str) -> usize {
        transformer_depth(name, "encoder.layer", self.blocks(), &["embeddings."])
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        name != "embeddings.position_embeddings.weight"
    }

    fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }
}

impl TextTowerSpec for BertConfig {
    fn build(&self, path: &Path) -> Result<Box<dyn TextTower>> {
        Ok(Box::new(Bert::new(path, self)?))
    }

    fn validate(&self) -> Result<()> {
        self.validate()
    }

    fn output_width(&self) -> i64 {
        self.hidden_size
    }

    fn context_length(&self) -> i64 {
        self.max_position_embeddings
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn set_vocabulary(&mut self, tokenizer: &Tokenizer) {
        self.vocab_size = tokenizer.vocab_size() as i64;
    }

    fn input_names(&self) -> &'static [&'static str] {
        &["input_ids", "token_type_ids", "attention_mask"]
    }
}

/// BERT's encoder (Devlin et al. 2019), pooled to one vector a text.
#[derive(Debug)]
pub struct Bert {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
    encoder: Transformer,
    pooling: Pooling,
}

#[derive(Debug)]
enum Pooling {
    Cls,
    Mean,
    Pooler(Linear),
}

impl Bert {
    /// Creates the encoder's parameters below `path`, initialized as in BERT.
    ///
    /// # Errors
    /// As [`BertConfig::validate`].
    pub fn new(path: &Path, config: &BertConfig) -> Result<Self> {
        config.validate()?;
        let (width, embeddings) = (config.hidden_size, path / "embeddings");
        let table = |name: &str, rows| Embedding::new(&(&embeddings / name), rows, width, INIT_STD);
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size),
            layer_norm: LayerNorm::new(&(&embeddings / "LayerNorm"), width, config.layer_norm_eps),
            encoder: Transformer::new(
                &(path / "encoder" / "layer"),
                &config.block_config(),
                &BlockNames::BERT,
            ),
            pooling: match config.pooling {
                BertPooling::Cls => Pooling::Cls,
                BertPooling::Mean => Pooling::Mean,
                BertPooling::Pooler => {
                    Pooling::Pooler(Linear::new(&(path / "pooler" / "dense"), width, width, INIT_STD))
                }
            },
        })
    }

    /// Maps `input_ids` `[B, L]`, L within the context length, to one vector a text `[B, hidden_size]`, in
    /// the weights' type. `attention_mask` `[B, L]` is 1 for tokens, of which each text has at least one, and
    /// 0 for padding.
    ///
    /// The batch is cut after the longest text: the result is the same, and so are the gradients.
    pub fn forward(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Tensor {
        if input_ids.size()[0] == 0 {
            return self.position_embeddings.first(0); // [0, D]: there is no longest text
        }
        let full = attention_mask.size()[1];
        let ends =
            attention_mask.ne(0) * Tensor::arange_start(1, full + 1, (Kind::Int64, attention_mask.device()));
        let length = ends.max().int64_value(&[]).max(1);
        let (input_ids, attention_mask) =
            (input_ids.narrow(1, 0, length), attention_mask.narrow(1, 0, length));

        let x = self.embed(&input_ids);
        let mask = AttentionMask::padding_if_any(&attention_mask);
        let first = Tensor::zeros([x.size()[0]], (Kind::Int64, x.device()));
        match &self.pooling {
            Pooling::Cls => self.encoder.forward_at(x, &mask, &first),
            Pooling::Pooler(dense) => dense.forward(&self.encoder.forward_at(x, &mask, &first)).tanh(),
            Pooling::Mean => {
                let x = self.encoder.forward(x, &mask);
                let weights = attention_mask.to_kind(Kind::Float).unsqueeze(-1); // [B, L, 1]
                let weights = &weights / weights.sum_dim_intlist(1, true, Kind::Float);
                (&x * weights.to_kind(x.kind())).sum_dim_intlist(1, false, x.kind()) // [B, D]
            }
        }
    }

    /// The embeddings `[B, L, hidden_size]` of `input_ids` `[B, L]`, with positions, normalized.
    pub(crate) fn embed(&self, input_ids: &Tensor) -> Tensor {
        let x = self.word_embeddings.forward(input_ids)
            + (self.position_embeddings.first(input_ids.size()[1]) + self.token_type_embeddings.first(1));
        self.layer_norm.forward(&x)
    }

    /// The states `[B, L, hidden_size]` of all tokens that are `embedded`, without pooling.
    pub(crate) fn encode(&self, embedded: &Tensor, attention_mask: &Tensor) -> Tensor {
        self.encoder.forward(embedded.shallow_clone(), &AttentionMask::padding_if_any(attention_mask))
    }

    /// The table of word vectors.
    pub(crate) fn word_embeddings(&self) -> &Embedding {
        &self.word_embeddings
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.word_embeddings.pack(precision);
        self.position_embeddings.pack(precision);
        self.token_type_embeddings.pack(precision);
        self.layer_norm.pack(precision);
        self.encoder.pack(precision);
        if let Pooling::Pooler(dense) = &mut self.pooling {
            dense.pack(precision);
        }
    }
}

impl TextTower for Bert {
    fn forward(&self, tokens: &TokenBatch) -> Tensor {
        self.forward(&tokens.input_ids, &tokens.attention_mask)
    }

    fn pack(&mut self, precision: Precision) {
        self.pack(precision);
    }
}
