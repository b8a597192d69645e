//! Writing of the `model_cfg` of open_clip's own towers.

use super::{DEFAULT_EPS, absent};
use crate::{ClipConfig, Result};
use mm_core::nn::Activation;
use mm_text::{ClipTextVariant, TextTowerConfig};
use mm_vision::{ImageTowerConfig, VitVariant};
use serde_json::{Value, json};

/// The `model_cfg` of `config`.
///
/// # Errors
/// open_clip has no such towers of its own.
pub(super) fn own_towers(config: &ClipConfig) -> Result<Value> {
    let TextTowerConfig::Clip(text) = &config.text else { return Err(absent(&config.text.describe())) };
    if text.variant != ClipTextVariant::Clip {
        return Err(absent("SigLIP text tower (it uses timm's)"));
    }
    if !config.text_projection || !config.image_projection {
        return Err(absent("tower without its projection"));
    }
    let mut text_cfg = json!({
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
    });
    extend(&mut text_cfg, text.hidden_size, text.intermediate_size, text.layer_norm_eps, text.hidden_act);
    if text.pooled_token().is_some_and(|token| token != text.vocab_size - 1) {
        text_cfg["pool_type"] = "eos".into();
        text_cfg["eos_id"] = text.eos_token_id.into();
    }
    let (vision_cfg, activation) = vision_cfg(&config.image, text.hidden_act)?;
    let is_quick = |activation| activation == Activation::QuickGelu;
    if is_quick(activation) != is_quick(text.hidden_act)
        || [activation, text.hidden_act].contains(&Activation::Relu)
    {
        return Err(absent("pair of towers with these activations"));
    }
    Ok(json!({
        "embed_dim": config.embed_dim,
        "quick_gelu": is_quick(activation),
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    }))
}

/// The `vision_cfg` of `image`, and the activation of its pair, given that of the text tower.
fn vision_cfg(image: &ImageTowerConfig, text_activation: Activation) -> Result<(Value, Activation)> {
    match image {
        ImageTowerConfig::Vit(vit) if vit.variant == VitVariant::Clip => {
            let mut vision_cfg = json!({
                "image_size": vit.image_size,
                "layers": vit.num_hidden_layers,
                "width": vit.hidden_size,
                "head_width": vit.hidden_size / vit.num_attention_heads,
                "patch_size": vit.patch_size,
            });
            let (width, mlp_width) = (vit.hidden_size, vit.intermediate_size);
            extend(&mut vision_cfg, width, mlp_width, vit.layer_norm_eps, vit.hidden_act);
            if vit.patch_dropout > 0.0 {
                vision_cfg["patch_dropout"] = vit.patch_dropout.into();
            }
            Ok((vision_cfg, vit.hidden_act))
        }
        ImageTowerConfig::ModifiedResNet(resnet) => {
            let vision_cfg = json!({
                "image_size": resnet.image_size,
                "layers": resnet.layers,
                "width": resnet.width,
                "head_width": resnet.width * 32 / resnet.heads,
            });
            Ok((vision_cfg, text_activation))
        }
        other => Err(absent(&format!("{} (it uses timm's towers)", other.describe()))),
    }
}

/// Adds the settings of a tower that differ from open_clip's defaults.
fn extend(config: &mut Value, width: i64, mlp_width: i64, eps: f64, activation: Activation) {
    if mlp_width != 4 * width {
        // Readers round the product down, which may be below the width by the rounding of the ratio.
        let ratio = mlp_width as f64 / width as f64;
        let is_short = (width as f64 * ratio) as i64 != mlp_width;
        config["mlp_ratio"] = if is_short { ratio.next_up() } else { ratio }.into();
    }
    if eps != DEFAULT_EPS {
        config["norm_kwargs"] = json!({ "eps": eps });
    }
    if activation == Activation::GeluPytorchTanh {
        config["act_kwargs"] = json!({ "approximate": "tanh" });
    }
}
