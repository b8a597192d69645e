//! The text transformer of CLIP and SigLIP.

use crate::config::{check_tower, describe};
use crate::tower::{PooledToken, TextTower, TextTowerSpec};
use crate::{Error, Padding, Result, TokenBatch, Tokenizer};
use mm_core::Precision;
use mm_core::nn::{
    Activation, AttentionMask, BlockConfig, BlockNames, Embedding, LayerNorm, Linear, NormOrder, TowerSpec,
    Transformer, transformer_depth,
};
use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// The family of a text transformer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipTextVariant {
    /// CLIP's (Radford et al. 2021, section 2.4): causal attention; the output at the end token is the text's
    /// vector.
    #[default]
    Clip,
    /// SigLIP's (Zhai et al. 2023): full attention, also to padding; the output at the last position, through
    /// a linear `head`, is the text's vector.
    Siglip,
}

impl ClipTextVariant {
    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::Siglip => "siglip",
        }
    }
}

/// The sizes of a CLIP or SigLIP text tower, named as in a Hugging Face `text_config`. Defaults are CLIP
/// ViT-B/32's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipTextConfig {
    /// The family.
    #[serde(alias = "form")]
    pub variant: ClipTextVariant,
    /// Rows of the token embedding.
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
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// CLIP: the end token, whose first occurrence is pooled. 2 means "the largest id", for configs from
    /// before transformers 4.31, which all have a wrong 2 here.
    pub eos_token_id: i64,
    /// SigLIP: output width of `head`; `hidden_size` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection_size: Option<i64>,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`]. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

impl ClipTextConfig {
    /// The `eos_token_id` that means "the largest id of a text".
    pub const LARGEST_ID: i64 = 2;
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            variant: ClipTextVariant::Clip,
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
            projection_size: None,
            gradient_checkpointing: false,
        }
    }
}

impl ClipTextConfig {
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
            ("projection_size", self.projection_size.unwrap_or(1)),
        ];
        let (layers, heads) = (self.num_hidden_layers, self.num_attention_heads);
        check_tower(&sizes, layers, self.hidden_size, heads, self.layer_norm_eps)?;
        match self.variant {
            ClipTextVariant::Clip if self.projection_size.is_some() => {
                Err(Error::Config("projection_size belongs to variant = \"siglip\"".to_owned()))
            }
            ClipTextVariant::Clip if !(0..self.vocab_size).contains(&self.eos_token_id) => {
                Err(Error::Config(format!(
                    "eos_token_id = {} is outside vocab_size = {}",
                    self.eos_token_id, self.vocab_size
                )))
            }
            _ => Ok(()),
        }
    }

    /// Width of the pooled output.
    pub fn output_width(&self) -> i64 {
        self.projection_size.unwrap_or(self.hidden_size)
    }

    /// The end token that is pooled; none if the tower pools the largest id or the last position.
    pub fn pooled_token(&self) -> Option<i64> {
        (self.variant == ClipTextVariant::Clip && self.eos_token_id != Self::LARGEST_ID)
            .then_some(self.eos_token_id)
    }

    fn block_config(&self) -> BlockConfig {
        BlockConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            mlp_width: self.intermediate_size,
            activation: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            norm_order: NormOrder::Pre,
            layers: self.num_hidden_layers,
            gradient_checkpointing: self.gradient_checkpointing,
            ..BlockConfig::default()
        }
    }
}

impl TowerSpec for ClipTextConfig {
    fn describe(&self) -> String {
        let family = format!("transformer ({})", self.variant.name());
        describe(&family, self, self.num_hidden_layers, self.hidden_size, self.num_attention_heads)
    }

    fn blocks(&self) -> usize {
        self.num_hidden_layers as usize
    }

    fn depth(&self, name: &str) -> usize {
        transformer_depth(name, "encoder.layers", self.blocks(), &["embeddings."])
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        name != "embeddings.position_embedding.weight"
    }

    fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }
}

impl TextTowerSpec for ClipTextConfig {
    fn build(&self, path: &Path) -> Result<Box<dyn TextTower>> {
        Ok(Box::new(ClipText::new(path, self)?))
    }

    fn validate(&self) -> Result<()> {
        self.validate()
    }

    fn output_width(&self) -> i64 {
        self.output_width()
    }

    fn context_length(&self) -> i64 {
        self.max_position_embeddings
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn set_vocabulary(&mut self, tokenizer: &Tokenizer) {
        self.vocab_size = tokenizer.vocab_size() as i64;
        self.eos_token_id = i64::from(tokenizer.eos_id());
    }

    fn padding(&self) -> Padding {
        match self.variant {
            ClipTextVariant::Clip => Padding::Longest,
            ClipTextVariant::Siglip => Padding::Fixed,
        }
    }

    /// SigLIP's tower attends to padding, so it has no mask.
    fn input_names(&self) -> &'static [&'static str] {
        match self.variant {
            ClipTextVariant::Clip => &["input_ids", "attention_mask"],
            ClipTextVariant::Siglip => &["input_ids"],
        }
    }

    fn pooled_token(&self) -> PooledToken {
        match self.variant {
            ClipTextVariant::Siglip => PooledToken::Any,
            ClipTextVariant::Clip => self.pooled_token().map_or(PooledToken::LargestId, PooledToken::Id),
        }
    }

    fn ends_in_shared_space(&self) -> bool {
        self.variant == ClipTextVariant::Siglip
    }
}

/// The text transformer of CLIP or SigLIP.
#[derive(Debug)]
pub struct ClipText {
    token_embedding: Embedding,
    /// The first id of tokens that were added, and their vectors `[n, D]`.
    new_tokens: Option<(i64, Tensor)>,
    position_embedding: Embedding,
    encoder: Transformer,
    final_layer_norm: LayerNorm,
    pooling: Pooling,
}

#[derive(Debug)]
enum Pooling {
    /// The first of these ids.
    FirstEos(i64),
    /// The largest id.
    LargestId,
    /// The last position, through a head.
    Last(Linear),
}

impl ClipText {
    /// Creates the tower's parameters below `path` (`text_model` in checkpoints), initialized as in OpenAI's
    /// CLIP.
    ///
    /// # Errors
    /// As [`ClipTextConfig::validate`].
    pub fn new(path: &Path, config: &ClipTextConfig) -> Result<Self> {
        config.validate()?;
        let (width, embeddings) = (config.hidden_size, path / "embeddings");
        let pooling = match config.variant {
            ClipTextVariant::Siglip => Pooling::Last(Linear::new(
                &(path / "head"),
                width,
                config.output_width(),
                (width as f64).powf(-0.5),
            )),
            ClipTextVariant::Clip if config.eos_token_id == ClipTextConfig::LARGEST_ID => Pooling::LargestId,
            ClipTextVariant::Clip => Pooling::FirstEos(config.eos_token_id),
        };
        let positions = config.max_position_embeddings;
        Ok(Self {
            token_embedding: Embedding::new(
                &(&embeddings / "token_embedding"),
                config.vocab_size,
                width,
                0.02,
            ),
            new_tokens: None,
            position_embedding: Embedding::new(&(&embeddings / "position_embedding"), positions, width, 0.01),
            encoder: Transformer::new(
                &(path / "encoder" / "layers"),
                &config.block_config(),
                &BlockNames::CLIP,
            ),
            final_layer_norm: LayerNorm::new(&(path / "final_layer_norm"), width, config.layer_norm_eps),
            pooling,
        })
    }

    /// Maps `input_ids` `[B, L]`, L within the context length, to one vector a text `[B, output_width]`, in
    /// the weights' type.
    ///
    /// With causal attention nothing after a text's end token changes its output, so the batch is cut after
    /// the last end token of its texts; the result is the same, and so are the gradients.
    pub fn forward(&self, input_ids: &Tensor) -> Tensor {
        match &self.pooling {
            Pooling::Last(head) => {
                let (batch, length) = input_ids.size2().expect("input_ids is [B, L]");
                let last = Tensor::full([batch], length - 1, (Kind::Int64, input_ids.device()));
                head.forward(&self.encode_at(input_ids, &AttentionMask::none(), &last))
            }
            Pooling::FirstEos(eos) => {
                self.pool_at(input_ids, &input_ids.eq(*eos).to_kind(Kind::Int64).argmax(1, false))
            }
            Pooling::LargestId => self.pool_at(input_ids, &input_ids.argmax(1, false)),
        }
    }

    /// The states of `input_ids` `[B, L]` before the first block and after each, `[B, L, hidden_size]`,
    /// without the final norm: transformers' `hidden_states`. CLIP only, whose attention is causal; unlike
    /// [`ClipText::forward`], at all positions.
    pub fn hidden_states(&self, input_ids: &Tensor) -> Vec<Tensor> {
        let x = self.embed(input_ids);
        self.encoder.forward_states(x, &AttentionMask::causal())
    }

    /// The final norm of hidden states `[B, L, hidden_size]`.
    pub fn final_norm(&self, states: &Tensor) -> Tensor {
        self.final_layer_norm.forward(states)
    }

    /// From `states` `[B, L, hidden_size]`, the vector `[B, hidden_size]` at the end token of each text of
    /// `input_ids` `[B, L]`. SigLIP's tower has no end token: the last position.
    pub fn at_end_token(&self, states: &Tensor, input_ids: &Tensor) -> Tensor {
        let length = input_ids.size()[1];
        let positions = match &self.pooling {
            Pooling::FirstEos(eos) => input_ids.eq(*eos).to_kind(Kind::Int64).argmax(1, true),
            Pooling::LargestId => input_ids.argmax(1, true),
            Pooling::Last(_) => input_ids.narrow(1, 0, 1).full_like(length - 1),
        };
        let width = states.size()[2];
        states.gather(1, &positions.unsqueeze(-1).expand([-1, 1, width], false), false).squeeze_dim(1)
    }

    /// The output with causal attention at `positions` `[B]`, the end of each text.
    fn pool_at(&self, input_ids: &Tensor, positions: &Tensor) -> Tensor {
        if input_ids.size()[0] == 0 {
            return self.position_embedding.first(0); // [0, D]: there is no longest text
        }
        let length = positions.max().int64_value(&[]) + 1;
        self.encode_at(&input_ids.narrow(1, 0, length), &AttentionMask::causal(), positions)
    }

    /// Maps `[B, L]` to `[B, D]`, at `positions` `[B]`.
    fn encode_at(&self, input_ids: &Tensor, mask: &AttentionMask, positions: &Tensor) -> Tensor {
        self.final_layer_norm.forward(&self.encoder.forward_at(self.embed(input_ids), mask, positions))
    }

    /// The table of tokens, `[vocab_size, hidden_size]`, without those that were added.
    pub fn token_table(&self) -> &Tensor {
        self.token_embedding.weight()
    }

    /// Adds tokens, of which the first has the id `first_id`, with `vectors` `[n, hidden_size]`, which may
    /// train: the table stays as it is. They take the place of rows of the table that no token has.
    ///
    /// # Errors
    /// `vectors` have another width, or the ids do not follow those of the table and of tokens added before.
    pub fn add_tokens(&mut self, first_id: i64, vectors: &Tensor) -> Result<()> {
        let (rows, width) = self.token_embedding.weight().size2()?;
        match vectors.size()[..] {
            [_, own] if own == width => {}
            _ => {
                let size = vectors.size();
                return Err(Error::Config(format!(
                    "vectors of new tokens are {size:?}: the text encoder needs [n, {width}]"
                )));
            }
        }
        let (first, next, vectors) = match &self.new_tokens {
            Some((first, before)) => {
                (*first, first + before.size()[0], Tensor::f_cat(&[before, vectors], 0)?)
            }
            None => (first_id, first_id, vectors.shallow_clone()),
        };
        if first_id != next || !(1..=rows).contains(&first) {
            return Err(Error::Config(format!(
                "a new token has the id {first_id}, and the table {rows} rows: ids must follow each other"
            )));
        }
        self.new_tokens = Some((first, vectors));
        Ok(())
    }

    /// Maps `[B, L]` to `[B, L, D]`.
    fn embed(&self, input_ids: &Tensor) -> Tensor {
        let places = self.position_embedding.first(input_ids.size()[1]); // [L, D]
        let words = match &self.new_tokens {
            None => self.token_embedding.forward(input_ids),
            Some((first, vectors)) => {
                let old = self.token_embedding.forward(&input_ids.clamp_max(*first - 1));
                let new = Tensor::embedding(vectors, &(input_ids - *first).clamp_min(0), -1, false, false);
                new.where_self(&input_ids.ge(*first).unsqueeze(-1), &old)
            }
        };
        words + places
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        self.token_embedding.pack(precision);
        if let Some((_, vectors)) = &mut self.new_tokens {
            *vectors = vectors.detach().to_kind(precision.kind());
        }
        self.position_embedding.pack(precision);
        self.encoder.pack(precision);
        self.final_layer_norm.pack(precision);
        if let Pooling::Last(head) = &mut self.pooling {
            head.pack(precision);
        }
    }
}

impl TextTower for ClipText {
    fn forward(&self, tokens: &TokenBatch) -> Tensor {
        self.forward(&tokens.input_ids)
    }

    fn pack(&mut self, precision: Precision) {
        self.pack(precision);
    }
}
