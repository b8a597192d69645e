//! open_clip's `open_clip_config.json`, and OpenAI's state dicts, with their config in the shapes of the
//! tensors.

mod hf_towers;
mod settings;
mod shapes;
mod tokenizer;
mod write;

pub(super) use hf_towers::{context_length, has_hf_towers, hf_name, text_config};
pub(super) use shapes::{check_shapes_give_config, infer};
pub(super) use tokenizer::{set_tokenizer, tokenizer_settings};

use crate::{ClipConfig, ContrastiveLoss, Error, Result};
use mm_core::hf::check_sizes;
use mm_core::nn::Activation;
use mm_text::{ClipTextConfig, ClipTextVariant, TextTowerConfig};
use mm_vision::{ImageTowerConfig, ModifiedResNetConfig, VitConfig, VitVariant};
use serde_json::{Value, json};

/// The width of an attention head in every model that OpenAI released.
const HEAD_WIDTH: i64 = 64;

/// PyTorch's default epsilon of layer norms.
const DEFAULT_EPS: f64 = 1e-5;

/// The model of an open_clip `model_cfg`. `text_config` is the config of a text tower of transformers, where
/// [`has_hf_towers`].
///
/// # Errors
/// The towers are neither open_clip's own (ViT or modified ResNet, and text transformer) nor timm's ViT with
/// a BERT, or have an unsupported setting, which is named.
pub(super) fn read(model_cfg: &Value, text_config: Option<&Value>) -> Result<ClipConfig> {
    if !model_cfg["vision_cfg"].is_object() || !model_cfg["text_cfg"].is_object() {
        return Err(Error::Model("model_cfg has no vision_cfg or no text_cfg".to_owned()));
    }
    settings::check(model_cfg)?;
    let embed_dim = number(model_cfg, "model_cfg", "embed_dim", None)?;
    let is_info_nce = model_cfg["init_logit_bias"].is_null();
    let loss = if is_info_nce { ContrastiveLoss::InfoNce } else { ContrastiveLoss::Siglip };
    let towers = match text_config {
        Some(text_config) => hf_towers::read(model_cfg, text_config, embed_dim)?,
        None => own_towers(model_cfg, embed_dim)?,
    };
    towers.image.validate()?;
    towers.text.validate()?;
    Ok(ClipConfig { loss, ..towers })
}

/// The `model_cfg` of `config`. `hf_model_name` is the name of the text tower's config on the hub, if it is
/// known.
///
/// # Errors
/// open_clip has no such towers.
pub(super) fn write(config: &ClipConfig, hf_model_name: Option<&str>) -> Result<Value> {
    let mut model_cfg = match (&config.image, &config.text) {
        (ImageTowerConfig::Vit(vit), TextTowerConfig::Bert(bert)) if vit.variant == VitVariant::Vit => {
            hf_towers::write(config, vit, bert, hf_model_name)?
        }
        _ => write::own_towers(config)?,
    };
    if config.loss == ContrastiveLoss::Siglip {
        model_cfg["init_logit_bias"] = (-10).into();
        model_cfg["nonscalar_logit_scale"] = true.into();
    }
    Ok(model_cfg)
}

/// A model of open_clip's own towers.
fn own_towers(model_cfg: &Value, embed_dim: i64) -> Result<ClipConfig> {
    if let Some(name) = hf_towers::timm_name(model_cfg) {
        let problem = "with a text tower of open_clip's own is not supported: with a BERT it is";
        return Err(Error::Model(format!("vision_cfg.timm_model_name = {name} {problem}")));
    }
    if let Some(name) = hf_towers::hf_name(model_cfg) {
        let problem = "with an image tower of open_clip's own is not supported: with a ViT of timm a BERT is";
        return Err(Error::Model(format!("text_cfg.hf_model_name = {name} {problem}")));
    }
    let activation = match &model_cfg["quick_gelu"] {
        Value::Bool(true) => Activation::QuickGelu,
        Value::Bool(false) | Value::Null => Activation::Gelu,
        other => return Err(wrong("model_cfg", "quick_gelu", other, "true or false")),
    };
    let image = image_config(&model_cfg["vision_cfg"], activation, embed_dim)?;
    let text = TextTowerConfig::Clip(own_text_config(&model_cfg["text_cfg"], activation)?);
    Ok(ClipConfig::new(embed_dim, image, text))
}

fn number(config: &Value, place: &str, name: &str, default: Option<i64>) -> Result<i64> {
    match (&config[name], default) {
        (Value::Null, Some(default)) => Ok(default),
        (value, _) => {
            let number = value.as_i64().ok_or_else(|| wrong(place, name, value, "an integer"))?;
            check_sizes(&[(&format!("{place}.{name}"), number)]).map_err(Error::Model)?;
            Ok(number)
        }
    }
}

/// The error for a model with a part that open_clip does not have.
fn absent(part: &str) -> Error {
    Error::Model(format!("open_clip has no {part} of its own: keep it in Hugging Face's format"))
}

/// A floating-point number.
fn decimal(config: &Value, place: &str, name: &str, default: f64) -> Result<f64> {
    match &config[name] {
        Value::Null => Ok(default),
        value => value.as_f64().ok_or_else(|| wrong(place, name, value, "a number")),
    }
}

fn wrong(place: &str, name: &str, value: &Value, expected: &str) -> Error {
    Error::Model(format!("{place}.{name} is {value}: expected {expected}"))
}

/// The side of a square, given as one number or as two equal ones.
fn side(config: &Value, name: &str, default: i64) -> Result<i64> {
    match &config[name] {
        Value::Array(sides) if sides.len() == 2 && sides[0] == sides[1] => {
            number(&json!({ name: sides[0] }), "vision_cfg", name, None)
        }
        Value::Array(sides) => {
            Err(Error::Model(format!("vision_cfg.{name} is {sides:?}: only squares are supported")))
        }
        _ => number(config, "vision_cfg", name, Some(default)),
    }
}

fn image_config(config: &Value, activation: Activation, embed_dim: i64) -> Result<ImageTowerConfig> {
    let width = number(config, "vision_cfg", "width", Some(768))?;
    let head_width = number(config, "vision_cfg", "head_width", Some(HEAD_WIDTH))?;
    let image_size = side(config, "image_size", 224)?;
    if let Value::Array(layers) = &config["layers"] {
        let layers: Option<Vec<i64>> = layers.iter().map(Value::as_i64).collect();
        let layers = layers.and_then(|layers| <[i64; 4]>::try_from(layers).ok());
        let layers =
            layers.ok_or_else(|| Error::Model("vision_cfg.layers: a ResNet has four numbers".to_owned()))?;
        let (heads, output_dim) = (width * 32 / head_width, embed_dim);
        let resnet = ModifiedResNetConfig { layers, width, heads, output_dim, image_size };
        return Ok(ImageTowerConfig::ModifiedResNet(resnet));
    }
    Ok(ImageTowerConfig::Vit(VitConfig {
        variant: VitVariant::Clip,
        hidden_size: width,
        intermediate_size: mlp_width(config, "vision_cfg", width)?,
        num_hidden_layers: number(config, "vision_cfg", "layers", Some(12))?,
        num_attention_heads: width / head_width,
        image_size,
        patch_size: side(config, "patch_size", 16)?,
        hidden_act: shaped(activation, config)?,
        layer_norm_eps: eps(config, "vision_cfg")?,
        patch_dropout: decimal(config, "vision_cfg", "patch_dropout", 0.0)?,
        ..VitConfig::default()
    }))
}

fn own_text_config(config: &Value, activation: Activation) -> Result<ClipTextConfig> {
    let width = number(config, "text_cfg", "width", Some(512))?;
    let vocab_size = number(config, "text_cfg", "vocab_size", Some(49408))?;
    let eos_token_id = match config["pool_type"].as_str() {
        Some("eos") => match number(config, "text_cfg", "eos_id", Some(ClipTextConfig::LARGEST_ID))? {
            ClipTextConfig::LARGEST_ID => {
                let problem = "text_cfg.eos_id = 2 is not supported with pool_type eos: \
                               here it stands for the largest id";
                return Err(Error::Model(problem.to_owned()));
            }
            eos_id => eos_id,
        },
        _ => ClipTextConfig::LARGEST_ID,
    };
    Ok(ClipTextConfig {
        variant: ClipTextVariant::Clip,
        vocab_size,
        hidden_size: width,
        intermediate_size: mlp_width(config, "text_cfg", width)?,
        num_hidden_layers: number(config, "text_cfg", "layers", Some(12))?,
        num_attention_heads: number(config, "text_cfg", "heads", Some(8))?,
        max_position_embeddings: number(config, "text_cfg", "context_length", Some(77))?,
        hidden_act: shaped(activation, config)?,
        layer_norm_eps: eps(config, "text_cfg")?,
        eos_token_id,
        ..ClipTextConfig::default()
    })
}

fn mlp_width(config: &Value, place: &str, width: i64) -> Result<i64> {
    Ok((width as f64 * decimal(config, place, "mlp_ratio", 4.0)?) as i64)
}

fn eps(config: &Value, place: &str) -> Result<f64> {
    match &config["norm_kwargs"] {
        Value::Null => Ok(DEFAULT_EPS),
        Value::Object(_) => {
            decimal(&config["norm_kwargs"], &format!("{place}.norm_kwargs"), "eps", DEFAULT_EPS)
        }
        other => Err(wrong(place, "norm_kwargs", other, "an object")),
    }
}

/// The activation with a tower's `act_kwargs`.
fn shaped(activation: Activation, config: &Value) -> Result<Activation> {
    match &config["act_kwargs"] {
        Value::Null => Ok(activation),
        Value::Object(none) if none.is_empty() => Ok(activation),
        kwargs if *kwargs == json!({ "approximate": "tanh" }) => Ok(Activation::GeluPytorchTanh),
        kwargs => Err(Error::Model(format!("act_kwargs = {kwargs} is not supported"))),
    }
}
