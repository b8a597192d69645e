use crate::Result;
use crate::config::check_tower;
use mm_core::Precision;
use mm_core::nn::{
    Activation, Attention, AttentionMask, Block, Embedding, LayerNorm, Linear, Mlp, NormOrder, Transformer,
};
use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// How a text's token outputs become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BertPooling {
    /// The first token's.
    #[default]
    Cls,
    /// Their mean, padding left out.
    Mean,
    /// The first token's, through BERT's own `pooler` (a linear layer and tanh): transformers'
    /// `pooler_output`.
    Pooler,
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
    /// Rows of the segment embedding. Texts here have one segment, so the first row alone is used.
    pub type_vocab_size: i64,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// How the tokens become one vector.
    pub pooling: BertPooling,
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
        }
    }
}

impl BertConfig {
    /// Refuses sizes that make no tower.
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
}

/// BERT's encoder (Devlin et al. 2019), with one vector a text as its output.
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
    /// Creates the encoder below `path`, initialised as BERT was.
    pub fn new(path: &Path, config: &BertConfig) -> Result<Self> {
        config.validate()?;
        let (width, embeddings, layers) =
            (config.hidden_size, path / "embeddings", path / "encoder" / "layer");
        let table = |name: &str, rows| Embedding::new(&(&embeddings / name), rows, width, INIT_STD);
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size),
            layer_norm: LayerNorm::new(&(&embeddings / "LayerNorm"), width, config.layer_norm_eps),
            encoder: Transformer::from_blocks(
                (0..config.num_hidden_layers).map(|layer| block(&(&layers / layer), config)).collect(),
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
    /// the weights' type. `attention_mask` `[B, L]` is 1 for tokens, of which each text has one at least, and
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

        let x = self.word_embeddings.forward(&input_ids)
            + (self.position_embeddings.first(length) + self.token_type_embeddings.first(1));
        let x = self.layer_norm.forward(&x); // [B, L, D]
        let mask = match attention_mask.all().int64_value(&[]) {
            1 => AttentionMask::None,
            _ => AttentionMask::padding(&attention_mask, x.kind()),
        };
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

    /// As [`Transformer::set_gradient_checkpointing`], for its blocks.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.encoder.set_gradient_checkpointing(on);
    }

    /// Readies for inference in `precision`.
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

/// One encoder layer under BERT's names.
fn block(path: &Path, config: &BertConfig) -> Block {
    let (width, mlp_width, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
    let (attention, output) = (path / "attention", path / "output");
    let in_proj = Linear::new(&(&attention / "self" / "in_proj"), width, 3 * width, INIT_STD);
    let out_proj = Linear::new(&(&attention / "output" / "dense"), width, width, INIT_STD);
    let fc1 = Linear::new(&(path / "intermediate" / "dense"), width, mlp_width, INIT_STD);
    let fc2 = Linear::new(&(&output / "dense"), mlp_width, width, INIT_STD);
    Block::from_parts(
        Attention::from_parts(in_proj, out_proj, config.num_attention_heads),
        LayerNorm::new(&(&attention / "output" / "LayerNorm"), width, eps),
        Mlp::from_parts(fc1, fc2, config.hidden_act),
        LayerNorm::new(&(&output / "LayerNorm"), width, eps),
        NormOrder::Post,
    )
}
