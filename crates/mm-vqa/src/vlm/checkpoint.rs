//! The names of tensors in files.
//!
//! The parameters of a model have the names that transformers 5.23 writes. Two other layouts of LLaVA are in
//! circulation: published files have `vision_model.` in the names of the tower, and those of transformers
//! 4.52 `model.` before every name, with the output layer outside.

use super::config::{VlmConfig, VlmFamily};
use crate::Result;
use mm_core::checkpoint::{NameMap, Weights, hf_names};

/// Maps the tensors of `weights` to the names of the model's parameters, and drops buffers and copies. A
/// config that ties the output layer where the file has another one is corrected.
///
/// # Errors
/// Tensors cannot be read.
pub(super) fn map(weights: &mut Weights, config: &mut VlmConfig) -> Result<()> {
    weights.retain(|name| !name.ends_with(".position_ids"));
    if config.family == VlmFamily::Llava {
        weights.rename(llava_name);
    }
    let embeddings = format!("{}.embed_tokens.weight", config.family.body_root());
    let head = format!("{}.weight", config.family.head_root());
    Ok(config.text.drop_copies(weights, &embeddings, &head)?)
}

impl VlmFamily {
    /// The names of the model's variables in the memory of transformers, which are those of PEFT's files: for
    /// [`Lora::attach`](mm_core::lora::Lora::attach).
    pub fn lora_names(self) -> NameMap {
        match self {
            Self::SmolVlm | Self::Idefics3 => hf_names,
            Self::Llava => |name| hf_names(name).iter().map(|name| llava_module(name)).collect(),
        }
    }
}

/// The name in memory of a parameter of LLaVA.
fn llava_module(name: &str) -> String {
    match name.strip_prefix("language_model.") {
        Some(name) if name.starts_with("lm_head.") => name.to_owned(),
        Some(name) => format!("model.language_model.{}", name.strip_prefix("model.").unwrap_or(name)),
        None => format!("model.{name}"),
    }
}

/// The name of a parameter of LLaVA for the tensor `name` in any of the three layouts.
fn llava_name(name: &str) -> String {
    let name = match name.strip_prefix("model.") {
        Some(below) => match below.strip_prefix("language_model.") {
            Some(name) => format!("language_model.model.{name}"),
            None => below.to_owned(),
        },
        None if name.starts_with("lm_head.") => format!("language_model.{name}"),
        None => name.to_owned(),
    };
    name.replacen("vision_tower.vision_model.", "vision_tower.", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_three_layouts_are_one() {
        for (names, expected) in [
            (
                [
                    "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
                    "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
                    "vision_tower.encoder.layers.0.mlp.fc1.weight",
                ],
                "vision_tower.encoder.layers.0.mlp.fc1.weight",
            ),
            (
                [
                    "language_model.model.norm.weight",
                    "model.language_model.norm.weight",
                    "language_model.model.norm.weight",
                ],
                "language_model.model.norm.weight",
            ),
            (
                ["language_model.lm_head.weight", "lm_head.weight", "language_model.lm_head.weight"],
                "language_model.lm_head.weight",
            ),
            (
                [
                    "multi_modal_projector.linear_1.bias",
                    "model.multi_modal_projector.linear_1.bias",
                    "multi_modal_projector.linear_1.bias",
                ],
                "multi_modal_projector.linear_1.bias",
            ),
        ] {
            assert_eq!(names.map(llava_name), [expected; 3]);
        }
    }
}
