//! The config of decoders of Llama's form.

use super::{Llama, TextDecoder, TextDecoderSpec};
use crate::{Error, Result, Tokenizer};
use mm_core::hf::{check_layers, check_sizes};
use mm_core::nn::{
    BlockConfig, BlockInit, GroupedQueries, MlpKind, NormKind, NormOrder, RopeConfig, RopeScaling, TowerSpec,
    transformer_depth,
};
use serde::{Deserialize, Serialize};
use tch::nn::Path;

/// The family of a decoder of Llama's form: which projections of attention have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LlamaVariant {
    /// Llama's, SmolLM2's: all four, or by default none.
    #[default]
    Llama,
    /// Qwen2's: queries, keys and values.
    Qwen2,
}

/// The sizes of a [`Llama`], named as in a Hugging Face `config.json`. Defaults are those of transformers'
/// `LlamaConfig`, Llama 7B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlamaConfig {
    /// The family.
    pub model_type: LlamaVariant,
    /// Rows of the token embedding.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width between the MLP's layers.
    pub intermediate_size: i64,
    /// Number of transformer blocks.
    pub num_hidden_layers: i64,
    /// Heads of queries.
    pub num_attention_heads: i64,
    /// Heads of keys and values, which divide those of queries; none: as many.
    pub num_key_value_heads: Option<i64>,
    /// Width of a head, even; none: `hidden_size / num_attention_heads`.
    pub head_dim: Option<i64>,
    /// The context length.
    pub max_position_embeddings: i64,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// The base of the frequencies of rotary positions.
    pub rope_theta: f64,
    /// How these frequencies are changed for longer texts.
    pub rope_scaling: RopeScaling,
    /// Whether Llama's projections of attention have biases.
    pub attention_bias: bool,
    /// Whether the output layer is the token embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Whether training recomputes the activations of blocks in the backward pass:
    /// [`BlockConfig::gradient_checkpointing`]. It is not stored with the model.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
}

impl Default for LlamaConfig {
    fn default() -> Self {
        Self {
            model_type: LlamaVariant::Llama,
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::Default,
            attention_bias: false,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            gradient_checkpointing: false,
        }
    }
}

impl LlamaConfig {
    /// The defaults of transformers' `Qwen2Config`.
    pub fn qwen2() -> Self {
        Self {
            model_type: LlamaVariant::Qwen2,
            vocab_size: 151_936,
            intermediate_size: 22_016,
            num_key_value_heads: Some(32),
            max_position_embeddings: 32_768,
            ..Self::default()
        }
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> i64 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_width(&self) -> i64 {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Whether the projections to queries, keys and values have biases, and whether that of the output has.
    fn biases(&self) -> (bool, bool) {
        match self.model_type {
            LlamaVariant::Llama => (self.attention_bias, self.attention_bias),
            LlamaVariant::Qwen2 => (true, false),
        }
    }

    /// The rotary positions.
    pub fn rope(&self) -> RopeConfig {
        RopeConfig { theta: self.rope_theta, scaling: self.rope_scaling }
    }

    /// The config of the blocks.
    pub(super) fn block_config(&self) -> BlockConfig {
        let (in_bias, out_bias) = self.biases();
        BlockConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            grouped: Some(GroupedQueries {
                kv_heads: self.kv_heads(),
                head_width: self.head_width(),
                in_bias,
                out_bias,
                rope: self.rope(),
            }),
            mlp_width: self.intermediate_size,
            mlp: MlpKind::Gated,
            norm: NormKind::Rms,
            layer_norm_eps: self.rms_norm_eps,
            norm_order: NormOrder::Pre,
            layers: self.num_hidden_layers,
            init: BlockInit::Normal(self.initializer_range),
            gradient_checkpointing: self.gradient_checkpointing,
            ..BlockConfig::default()
        }
    }

    /// Checks that this decoder has an embedding for every token of `tokenizer`.
    ///
    /// # Errors
    /// It has not.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (ids, rows) = (tokenizer.vocab_size(), self.vocab_size);
        if ids as i64 > rows {
            let reason = format!("its vocabulary has {ids} tokens, the decoder's embedding {rows} rows");
            return Err(Error::Mismatch(reason));
        }
        Ok(())
    }
}

impl TowerSpec for LlamaConfig {
    fn describe(&self) -> String {
        let family = match self.model_type {
            LlamaVariant::Llama => "Llama",
            LlamaVariant::Qwen2 => "Qwen2",
        };
        format!(
            "{family}: {} blocks, width {}, {} heads over {} of keys and values; {} ids, {} positions",
            self.num_hidden_layers,
            self.hidden_size,
            self.num_attention_heads,
            self.kv_heads(),
            self.vocab_size,
            self.max_position_embeddings
        )
    }

    fn blocks(&self) -> usize {
        self.num_hidden_layers as usize
    }

    /// `name` is below the body (`layers.0...`) or below the whole decoder (`model.layers.0...`, `lm_head`).
    fn depth(&self, name: &str) -> usize {
        let name = name.strip_prefix("model.").unwrap_or(name);
        transformer_depth(name, "layers", self.blocks(), &["embed_tokens."])
    }

    fn has_weight_decay(&self, _name: &str) -> bool {
        true // positions have no parameters
    }

    fn set_gradient_checkpointing(&mut self, on: bool) {
        self.gradient_checkpointing = on;
    }
}

impl TextDecoderSpec for LlamaConfig {
    /// As transformers' `LlamaForCausalLM`: the body below `model`, the output layer at `lm_head`.
    fn build(&self, path: &Path, context_width: Option<i64>) -> Result<Box<dyn TextDecoder>> {
        if let Some(width) = context_width {
            return Err(Error::Config(format!(
                "a decoder of Llama's form has no cross-attention over states of width {width}: offered are \
                 gpt2 and bert"
            )));
        }
        Ok(Box::new(Llama::new(&(path / "model"), &(path / "lm_head"), self)?))
    }

    fn validate(&self) -> Result<()> {
        let (heads, kv_heads, head) = (self.num_attention_heads, self.kv_heads(), self.head_width());
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", head),
            ("num_attention_heads times head_dim", heads.saturating_mul(head)),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        check_sizes(&sizes)
            .and_then(|()| check_layers("num_hidden_layers", self.num_hidden_layers))
            .map_err(Error::Config)?;
        let wrong = |problem: String| Err(Error::Config(problem));
        if self.head_dim.is_none() && self.hidden_size % heads != 0 {
            let width = self.hidden_size;
            return wrong(format!(
                "hidden_size {width} is no multiple of num_attention_heads {heads}, and there is no head_dim"
            ));
        }
        if head % 2 != 0 {
            return wrong(format!("head_dim is {head}: rotary positions turn pairs, so it must be even"));
        }
        if heads % kv_heads != 0 {
            return wrong(format!(
                "num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
            ));
        }
        for (name, value) in
            [("rms_norm_eps", self.rms_norm_eps), ("initializer_range", self.initializer_range)]
        {
            if !(value > 0.0 && value < 1.0) {
                return wrong(format!("{name} is {value}: it must lie between 0 and 1"));
            }
        }
        self.rope().validate().map_err(Error::Config)
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
