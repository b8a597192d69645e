//! The parts of a vision transformer that differ between its families.

use crate::map_head::MapHead;
use crate::vit_config::{VitConfig, VitVariant};
use mm_core::nn::{BlockConfig, BlockInit, Linear, NormOrder, PatchEmbedding, parameter};
use tch::Tensor;
use tch::nn::{Init, Path};

/// The standard deviation of every initial weight of [`VitVariant::Vit`], transformers' `initializer_range`.
const VIT_STD: f64 = 0.02;

/// The pooling of the normalized tokens.
#[derive(Debug)]
pub(crate) enum Pooling {
    /// The class token.
    Class,
    /// The class token, through a linear layer and tanh.
    Pooler(Linear),
    /// Attention over all tokens.
    Map(Box<MapHead>),
    /// The mean of all tokens, of a tower without a head.
    Mean,
}

pub(crate) fn block_config(config: &VitConfig) -> BlockConfig {
    let init = match config.variant {
        VitVariant::Clip | VitVariant::Siglip => BlockInit::Clip,
        VitVariant::Vit | VitVariant::Blip => BlockInit::Normal(VIT_STD),
    };
    BlockConfig {
        width: config.hidden_size,
        heads: config.num_attention_heads,
        mlp_width: config.intermediate_size,
        activation: config.hidden_act,
        layer_norm_eps: config.layer_norm_eps,
        norm_order: NormOrder::Pre,
        layers: config.num_hidden_layers,
        init,
        gradient_checkpointing: config.gradient_checkpointing,
        ..BlockConfig::default()
    }
}

pub(crate) fn class_token_and_pooling(
    path: &Path,
    config: &VitConfig,
    block: &BlockConfig,
    has_head: bool,
) -> (Option<Tensor>, Pooling) {
    let (width, embeddings) = (config.hidden_size, path / "embeddings");
    match config.variant {
        VitVariant::Clip => {
            let class = parameter(&embeddings, "class_embedding", &[width], normal(embedding_std(config)));
            (Some(class), Pooling::Class)
        }
        VitVariant::Siglip if !has_head => (None, Pooling::Mean),
        VitVariant::Siglip => (None, Pooling::Map(Box::new(MapHead::new(&(path / "head"), block)))),
        VitVariant::Vit => {
            let class = parameter(&embeddings, "cls_token", &[1, 1, width], normal(VIT_STD));
            let pooler = || Linear::new(&(path / "pooler" / "dense"), width, width, VIT_STD);
            (Some(class), if config.pooler { Pooling::Pooler(pooler()) } else { Pooling::Class })
        }
        VitVariant::Blip => {
            (Some(parameter(&embeddings, "class_embedding", &[1, 1, width], normal(VIT_STD))), Pooling::Class)
        }
    }
}

/// CLIP keeps PyTorch's default for convolutions (a third of LeCun's variance), SigLIP has LeCun's.
pub(crate) fn patch_embedding(embeddings: &Path, config: &VitConfig) -> PatchEmbedding {
    let fan_in = (3 * config.patch_size * config.patch_size) as f64;
    let (path, std) = match config.variant {
        VitVariant::Clip => (embeddings / "patch_embedding", (3.0 * fan_in).powf(-0.5)),
        VitVariant::Siglip => (embeddings / "patch_embedding", fan_in.powf(-0.5)),
        VitVariant::Vit => (embeddings / "patch_embeddings" / "projection", VIT_STD),
        VitVariant::Blip => (embeddings / "patch_embedding", VIT_STD),
    };
    let has_bias = config.variant != VitVariant::Clip;
    PatchEmbedding::new(&path, config.patch_size, config.hidden_size, has_bias, std)
}

/// `[L, width]` or `[1, L, width]`.
pub(crate) fn position_embedding(embeddings: &Path, config: &VitConfig) -> Tensor {
    let (width, grid) = (config.hidden_size, config.patch_grid());
    let length = config.class_tokens() + grid * grid;
    match config.variant {
        VitVariant::Clip | VitVariant::Siglip => {
            let path = embeddings / "position_embedding";
            parameter(&path, "weight", &[length, width], normal(embedding_std(config)))
        }
        VitVariant::Vit => parameter(embeddings, "position_embeddings", &[1, length, width], normal(VIT_STD)),
        VitVariant::Blip => parameter(embeddings, "position_embedding", &[1, length, width], normal(VIT_STD)),
    }
}

/// The standard deviation of CLIP's class and position embeddings.
pub(crate) fn embedding_std(config: &VitConfig) -> f64 {
    (config.hidden_size as f64).powf(-0.5)
}

fn normal(std: f64) -> Init {
    Init::Randn { mean: 0.0, stdev: std }
}
