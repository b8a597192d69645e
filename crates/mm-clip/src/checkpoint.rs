//! The names of a [`Clip`](crate::Clip)'s parameters in other families of checkpoints.

use crate::ClipConfig;
use crate::encoder::TEXT_ROOT;
use mm_core::checkpoint::{TensorLayout, Weights, hf_names};
use mm_text::TextTowerConfig;

/// The layout of open_clip and OpenAI: one set of transformer names for both towers, joined q, k and v,
/// transposed projections.
pub const OPEN_CLIP: TensorLayout =
    TensorLayout { names: open_clip_names, is_transposed: is_transposed_in_open_clip };

/// The layout of open_clip's models with a ViT of timm and a BERT of transformers.
const OPEN_CLIP_HF_TOWERS: TensorLayout = TensorLayout { names: hf_tower_names, is_transposed: |_| false };

/// A ViT of timm alone, for variables named below the tower's path.
pub const TIMM_VIT: TensorLayout =
    TensorLayout { names: |name| vec![timm_vit_name(name)], is_transposed: |_| false };

/// The layout of open_clip's checkpoint of `config`.
pub fn open_clip_layout(config: &ClipConfig) -> TensorLayout {
    match config.text {
        TextTowerConfig::Clip(_) => OPEN_CLIP,
        TextTowerConfig::Bert(_) => OPEN_CLIP_HF_TOWERS,
    }
}

/// Whether open_clip multiplies by this projection from the right.
fn is_transposed_in_open_clip(name: &str) -> bool {
    ["visual_projection.weight", "text_projection.weight"].contains(&name)
}

/// Parts of names here and in open_clip, in the order of their replacement.
const PARTS: [(&str, &str); 18] = [
    ("visual_projection.weight", "visual.proj"),
    ("text_projection.weight", "text_projection"),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.embeddings.patch_embedding", "visual.conv1"),
    ("vision_model.pre_layrnorm", "visual.ln_pre"),
    ("vision_model.post_layernorm", "visual.ln_post"),
    ("vision_model.encoder.layers", "visual.transformer.resblocks"),
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("text_model.encoder.layers", "transformer.resblocks"),
    ("self_attn.in_proj.", "attn.in_proj_"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];

fn open_clip_names(name: &str) -> Vec<String> {
    // A modified ResNet has open_clip's names already, some of which would be replaced wrongly.
    if name.starts_with("visual.") {
        return vec![name.to_owned()];
    }
    vec![PARTS.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replacen(ours, theirs, 1))]
}

fn hf_tower_names(name: &str) -> Vec<String> {
    if let Some(rest) = name.strip_prefix("vision_model.") {
        return vec![format!("visual.trunk.{}", timm_vit_name(rest))];
    }
    if let Some(rest) = name.strip_prefix("text_model.") {
        return hf_names(&format!("text.transformer.{rest}"));
    }
    let projections = [("visual_projection.", "visual.head.proj."), ("text_projection.", "text.proj.")];
    let renamed =
        projections.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)));
    vec![renamed.unwrap_or_else(|| name.to_owned())]
}

/// Parts of names of transformers' ViT and of timm's, in the order of their replacement.
const TIMM_PARTS: [(&str, &str); 10] = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.", "blocks."),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.attention.in_proj", "attn.qkv"),
    ("attention.output.dense", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
];

/// timm's name of the parameter `name` of a ViT, below the tower's path.
fn timm_vit_name(name: &str) -> String {
    let name = TIMM_PARTS.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replacen(ours, theirs, 1));
    match name.strip_prefix("layernorm.") {
        Some(rest) => format!("norm.{rest}"),
        None => name,
    }
}

/// Renames the tensors of a single tower, whose prefix differs between Hugging Face's classes, to those of a
/// full CLIP: below `root`. Old BERT files name the parameters of a norm gamma and beta. Heads of other tasks
/// are dropped, and of the weights of a full CLIP the other tower.
pub fn join_names(weights: &mut Weights, root: &str) {
    let (own, other) = match root {
        TEXT_ROOT => (["text_model.", "bert."], ["vision_model.", "visual_projection."]),
        _ => (["vision_model.", "vit."], ["text_model.", "text_projection."]),
    };
    let prefix = own.into_iter().find(|prefix| weights.has_prefix(prefix)).unwrap_or("");
    let dropped = ["cls.", "classifier.", "logit_scale", "logit_bias"].into_iter().chain(other);
    let dropped: Vec<&str> = dropped.collect();
    weights.retain(|name| !dropped.iter().any(|head| name.starts_with(head)));
    weights.rename(|name| {
        let name =
            name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
        match name.strip_prefix(prefix) {
            Some(rest)
                if !rest.starts_with("visual_projection.") && !rest.starts_with("text_projection.") =>
            {
                format!("{root}.{rest}")
            }
            _ => name,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_open_clip_are_those_of_its_state_dict() {
        for (ours, theirs) in [
            (
                "vision_model.encoder.layers.3.self_attn.in_proj.weight",
                "visual.transformer.resblocks.3.attn.in_proj_weight",
            ),
            (
                "vision_model.encoder.layers.0.self_attn.out_proj.bias",
                "visual.transformer.resblocks.0.attn.out_proj.bias",
            ),
            ("text_model.encoder.layers.11.mlp.fc2.weight", "transformer.resblocks.11.mlp.c_proj.weight"),
            ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
            ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
            ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
            ("text_model.final_layer_norm.bias", "ln_final.bias"),
            ("visual.layer1.0.conv1.weight", "visual.layer1.0.conv1.weight"),
            ("logit_scale", "logit_scale"),
        ] {
            assert_eq!((OPEN_CLIP.names)(ours), [theirs]);
        }
        assert!((OPEN_CLIP.is_transposed)("text_projection.weight"));
    }

    #[test]
    fn names_of_towers_of_timm_and_transformers_are_those_of_open_clips_state_dict() {
        for (ours, theirs) in [
            ("vision_model.embeddings.cls_token", "visual.trunk.cls_token"),
            ("vision_model.embeddings.position_embeddings", "visual.trunk.pos_embed"),
            (
                "vision_model.embeddings.patch_embeddings.projection.bias",
                "visual.trunk.patch_embed.proj.bias",
            ),
            (
                "vision_model.encoder.layer.3.attention.attention.in_proj.weight",
                "visual.trunk.blocks.3.attn.qkv.weight",
            ),
            (
                "vision_model.encoder.layer.0.attention.output.dense.bias",
                "visual.trunk.blocks.0.attn.proj.bias",
            ),
            ("vision_model.encoder.layer.11.output.dense.weight", "visual.trunk.blocks.11.mlp.fc2.weight"),
            ("vision_model.encoder.layer.0.layernorm_after.bias", "visual.trunk.blocks.0.norm2.bias"),
            ("vision_model.layernorm.weight", "visual.trunk.norm.weight"),
            ("visual_projection.weight", "visual.head.proj.weight"),
            (
                "text_model.encoder.layer.0.attention.output.LayerNorm.bias",
                "text.transformer.encoder.layer.0.attention.output.LayerNorm.bias",
            ),
            ("text_projection.2.weight", "text.proj.2.weight"),
            ("logit_scale", "logit_scale"),
        ] {
            assert_eq!((OPEN_CLIP_HF_TOWERS.names)(ours), [theirs]);
        }
        let query = (OPEN_CLIP_HF_TOWERS.names)("text_model.encoder.layer.0.attention.self.in_proj.bias");
        assert_eq!(query[0], "text.transformer.encoder.layer.0.attention.self.query.bias");
    }
}
