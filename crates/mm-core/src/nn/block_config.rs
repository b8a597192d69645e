//! Sizes, initial weights and parameter names of transformer blocks.

use super::{Activation, RopeConfig};
use tch::nn::Path;

/// Where a block normalizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOrder {
    /// Before each sub-layer (GPT-2, ViT, CLIP).
    Pre,
    /// After each residual sum (the original transformer, BERT).
    Post,
}

/// How a block normalizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormKind {
    /// By mean and variance: [`LayerNorm`](super::LayerNorm).
    #[default]
    Layer,
    /// By the root of the mean square: [`RmsNorm`](super::RmsNorm) (Llama).
    Rms,
}

/// The MLP of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MlpKind {
    /// Two layers with biases, and the activation of the config: [`Mlp`](super::Mlp).
    #[default]
    Plain,
    /// Three layers without biases, one of which gates: [`GatedMlp`](super::GatedMlp) (Llama).
    Gated,
}

/// Self-attention in which groups of heads share keys and values, with rotary positions (Llama).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupedQueries {
    /// Heads of keys and values; divides the heads of queries.
    pub kv_heads: i64,
    /// Width of a head; even.
    pub head_width: i64,
    /// Whether the projections to queries, keys and values have a bias.
    pub in_bias: bool,
    /// Whether the projection of the output has a bias.
    pub out_bias: bool,
    /// The rotary positions.
    pub rope: RopeConfig,
}

/// The initial weights of a block; biases are zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BlockInit {
    /// OpenAI CLIP's: normal, with standard deviations that depend on the width, and smaller by the root of
    /// the number of layers for projections back into the residual stream.
    Clip,
    /// Normal with this standard deviation: transformers' `initializer_range` (BERT, ViT).
    Normal(f64),
}

/// The sizes of a transformer block, and how it is trained. Defaults are those of CLIP's text transformer.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Width of the residual stream.
    pub width: i64,
    /// Attention heads; divides `width`, where queries are not grouped.
    pub heads: i64,
    /// Grouped self-attention; none: every head has its own keys and values, of `width / heads` numbers, and
    /// positions are part of the input.
    pub grouped: Option<GroupedQueries>,
    /// Width between the MLP's two linear layers.
    pub mlp_width: i64,
    /// The form of the MLP.
    pub mlp: MlpKind,
    /// The activation of a plain MLP.
    pub activation: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// How the block normalizes.
    pub norm: NormKind,
    /// Where the block normalizes.
    pub norm_order: NormOrder,
    /// Number of blocks in the stack.
    pub layers: i64,
    /// The initial weights.
    pub init: BlockInit,
    /// Width of the states that cross-attention reads, between self-attention and MLP; none: the block has no
    /// cross-attention.
    pub context_width: Option<i64>,
    /// Probability of dropout in training, of attention weights, of the MLP's activations, and of what each
    /// sub-layer adds to the residual stream (Vaswani et al. 2017, section 5.4). It is off until
    /// [`Transformer::set_training`](super::Transformer::set_training).
    pub dropout: f64,
    /// Whether training keeps only each block's input and computes the rest again in the backward pass (Chen
    /// et al. 2016): the same gradients, a third more time, a fraction of the memory. Without effect where
    /// nothing needs a gradient.
    pub gradient_checkpointing: bool,
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self {
            width: 512,
            heads: 8,
            grouped: None,
            mlp_width: 2048,
            mlp: MlpKind::Plain,
            activation: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            norm: NormKind::Layer,
            norm_order: NormOrder::Pre,
            layers: 12,
            init: BlockInit::Clip,
            context_width: None,
            dropout: 0.0,
            gradient_checkpointing: false,
        }
    }
}

/// Standard deviations of a block's initial weights.
pub(super) struct InitStd {
    /// Of the projections to queries, keys and values.
    pub attention_in: f64,
    /// Of the MLP's first layer.
    pub mlp_in: f64,
    /// Of the projections back into the residual stream.
    pub out: f64,
}

impl BlockConfig {
    pub(super) fn init_std(&self) -> InitStd {
        match self.init {
            BlockInit::Normal(std) => InitStd { attention_in: std, mlp_in: std, out: std },
            BlockInit::Clip => {
                let width = self.width as f64;
                let attention_in = width.powf(-0.5);
                let out = attention_in * (2.0 * self.layers as f64).powf(-0.5);
                InitStd { attention_in, mlp_in: (2.0 * width).powf(-0.5), out }
            }
        }
    }
}

/// The names of a block's layers below its path, dots included, as a family of checkpoints has them. Joined
/// projections (`in_proj`, `kv_proj`) are split at the file: see [`crate::checkpoint::hf_names`].
#[derive(Clone, Copy, Debug)]
pub struct BlockNames {
    /// Queries, keys and values of self-attention.
    pub in_proj: &'static str,
    /// Queries of grouped self-attention, where the block has it.
    pub q_proj: &'static str,
    /// Keys and values of grouped self-attention.
    pub kv_proj: &'static str,
    /// The output of self-attention.
    pub out_proj: &'static str,
    /// The norm of self-attention.
    pub attention_norm: &'static str,
    /// Cross-attention, where the block has it.
    pub cross_attention: CrossAttentionNames,
    /// The gate of a gated MLP.
    pub gate_proj: &'static str,
    /// The MLP's first layer.
    pub fc1: &'static str,
    /// The MLP's second layer.
    pub fc2: &'static str,
    /// The norm of the MLP.
    pub mlp_norm: &'static str,
}

/// The names of cross-attention in [`BlockNames`].
#[derive(Clone, Copy, Debug)]
pub struct CrossAttentionNames {
    /// Queries.
    pub q_proj: &'static str,
    /// Keys and values.
    pub kv_proj: &'static str,
    /// The output.
    pub out_proj: &'static str,
    /// The norm.
    pub norm: &'static str,
}

impl BlockNames {
    /// CLIP's encoder layers; cross-attention as in MBart's decoder layers, grouped attention and a gate as
    /// in Llama's.
    pub const CLIP: Self = Self {
        in_proj: "self_attn.in_proj",
        q_proj: "self_attn.q_proj",
        kv_proj: "self_attn.kv_proj",
        out_proj: "self_attn.out_proj",
        attention_norm: "layer_norm1",
        cross_attention: CrossAttentionNames {
            q_proj: "encoder_attn.q_proj",
            kv_proj: "encoder_attn.kv_proj",
            out_proj: "encoder_attn.out_proj",
            norm: "encoder_attn_layer_norm",
        },
        gate_proj: "mlp.gate_proj",
        fc1: "mlp.fc1",
        fc2: "mlp.fc2",
        mlp_norm: "layer_norm2",
    };

    /// Llama's decoder layers.
    pub const LLAMA: Self = Self {
        out_proj: "self_attn.o_proj",
        attention_norm: "input_layernorm",
        fc1: "mlp.up_proj",
        fc2: "mlp.down_proj",
        mlp_norm: "post_attention_layernorm",
        ..Self::CLIP
    };

    /// BERT's layers.
    pub const BERT: Self = Self {
        in_proj: "attention.self.in_proj",
        out_proj: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        cross_attention: CrossAttentionNames {
            q_proj: "crossattention.self.query",
            kv_proj: "crossattention.self.kv_proj",
            out_proj: "crossattention.output.dense",
            norm: "crossattention.output.LayerNorm",
        },
        fc1: "intermediate.dense",
        fc2: "output.dense",
        mlp_norm: "output.LayerNorm",
        ..Self::CLIP
    };

    /// The layers of transformers' `ViTModel`; cross-attention as in BERT's.
    pub const VIT: Self = Self {
        in_proj: "attention.attention.in_proj",
        attention_norm: "layernorm_before",
        mlp_norm: "layernorm_after",
        ..Self::BERT
    };

    /// The encoder layers of BLIP's `BlipVisionModel`: CLIP's, with one projection to queries, keys and
    /// values.
    pub const BLIP: Self = Self { in_proj: "self_attn.qkv", out_proj: "self_attn.projection", ..Self::CLIP };

    /// GPT-2's blocks. Their matrices are transposed in the file.
    pub const GPT2: Self = Self {
        in_proj: "attn.c_attn",
        out_proj: "attn.c_proj",
        attention_norm: "ln_1",
        cross_attention: CrossAttentionNames {
            q_proj: "crossattention.q_attn",
            kv_proj: "crossattention.c_attn",
            out_proj: "crossattention.c_proj",
            norm: "ln_cross_attn",
        },
        fc1: "mlp.c_fc",
        fc2: "mlp.c_proj",
        mlp_norm: "ln_2",
        ..Self::CLIP
    };
}

/// The path of a layer whose name has dots.
pub(super) fn layer_path<'a>(path: &Path<'a>, name: &str) -> Path<'a> {
    name.split('.').fold(path.clone(), |path, part| path / part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::hf_names;
    use crate::nn::{Block, RopeScaling};
    use tch::Device;
    use tch::nn::VarStore;

    /// The weights of a decoder's block, by their names in a checkpoint.
    fn stored_weights(names: &BlockNames) -> Vec<String> {
        let config = BlockConfig { context_width: Some(8), ..BlockConfig::default() };
        let names = stored(&config, names).into_iter();
        names.filter_map(|name| name.strip_suffix(".weight").map(str::to_owned)).collect()
    }

    /// The parameters of a block of this config, by their names in a checkpoint.
    fn stored(config: &BlockConfig, names: &BlockNames) -> Vec<String> {
        let vs = VarStore::new(Device::Cpu);
        Block::new(&vs.root(), config, names);
        let mut names: Vec<String> = vs.variables().into_keys().flat_map(|name| hf_names(&name)).collect();
        names.sort();
        names
    }

    #[test]
    fn a_block_of_llamas_form_has_its_names_and_the_biases_of_its_config() {
        let rope = RopeConfig { theta: 1e4, scaling: RopeScaling::Default };
        let stored = |in_bias, out_bias| {
            let grouped = Some(GroupedQueries { kv_heads: 2, head_width: 16, in_bias, out_bias, rope });
            let (mlp, norm) = (MlpKind::Gated, NormKind::Rms);
            stored(&BlockConfig { grouped, mlp, norm, ..BlockConfig::default() }, &BlockNames::LLAMA)
        };
        let weights = [
            "input_layernorm",
            "mlp.down_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "post_attention_layernorm",
            "self_attn.k_proj",
            "self_attn.o_proj",
            "self_attn.q_proj",
            "self_attn.v_proj",
        ];
        assert_eq!(stored(false, false), weights.map(|name| format!("{name}.weight")));
        let biases = |stored: Vec<String>| -> Vec<String> {
            stored.iter().filter_map(|name| Some(name.strip_suffix(".bias")?.to_owned())).collect()
        };
        let of_inputs = ["self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj"];
        assert_eq!(biases(stored(true, false)), of_inputs);
        assert_eq!(biases(stored(false, true)), ["self_attn.o_proj"]);
    }

    #[test]
    fn a_block_is_stored_under_the_names_of_its_family() {
        let mbart = [
            "encoder_attn.k_proj",
            "encoder_attn.out_proj",
            "encoder_attn.q_proj",
            "encoder_attn.v_proj",
            "encoder_attn_layer_norm",
            "layer_norm1",
            "layer_norm2",
            "mlp.fc1",
            "mlp.fc2",
            "self_attn.k_proj",
            "self_attn.out_proj",
            "self_attn.q_proj",
            "self_attn.v_proj",
        ];
        assert_eq!(stored_weights(&BlockNames::CLIP), mbart);
        let bert = [
            "attention.output.LayerNorm",
            "attention.output.dense",
            "attention.self.key",
            "attention.self.query",
            "attention.self.value",
            "crossattention.output.LayerNorm",
            "crossattention.output.dense",
            "crossattention.self.key",
            "crossattention.self.query",
            "crossattention.self.value",
            "intermediate.dense",
            "output.LayerNorm",
            "output.dense",
        ];
        assert_eq!(stored_weights(&BlockNames::BERT), bert);
    }
}
