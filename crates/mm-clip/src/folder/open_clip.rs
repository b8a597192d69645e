//! open_clip's `open_clip_config.json`, and OpenAI's state dicts, whose config is in the shapes of their
//! tensors.

use crate::{ClipConfig, ContrastiveLoss, Error, Result};
use mm_core::checkpoint::Weights;
use mm_core::hf::check_sizes;
use mm_core::nn::Activation;
use mm_text::{ClipTextConfig, ClipTextVariant, TextClean, TextTowerConfig, Tokenizer};
use mm_vision::{ImageTowerConfig, ModifiedResNetConfig, VitConfig, VitVariant};
use serde_json::{Value, json};

/// The width of a head in every model that OpenAI released.
const HEAD_WIDTH: i64 = 64;

/// PyTorch's epsilon of layer norms.
const DEFAULT_EPS: f64 = 1e-5;

/// The settings of open_clip's towers that change their shape and are not offered, where they are set at all.
const UNOFFERED: [&str; 15] = [
    "ls_init_value",
    "attentional_pool",
    "no_ln_pre",
    "final_ln_after_pool",
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
    "embed_cls",
    "no_causal_mask",
    "proj_bias",
    "timm_model_name",
    "hf_model_name",
];

/// Words that stand for a tower's plain form.
const PLAIN_WORDS: [(&str, &[&str]); 4] = [
    ("pos_embed_type", &["learnable"]),
    ("proj_type", &["linear"]),
    ("block_type", &["default"]),
    ("pool_type", &["tok", "argmax", "eos"]),
];

/// The model that an open_clip `model_cfg` describes.
///
/// # Errors
/// A tower is not open_clip's own ViT, modified ResNet or text transformer, or has a setting that is not
/// offered: it is named.
pub(super) fn read(model_cfg: &Value) -> Result<ClipConfig> {
    let (vision, text) = (&model_cfg["vision_cfg"], &model_cfg["text_cfg"]);
    if !vision.is_object() || !text.is_object() {
        return Err(Error::Model("model_cfg has no vision_cfg or no text_cfg".to_owned()));
    }
    if model_cfg.get("multimodal_cfg").is_some_and(|config| !config.is_null()) {
        return Err(Error::Model("CoCa (multimodal_cfg) is not offered".to_owned()));
    }
    refuse_unoffered("vision_cfg", vision)?;
    refuse_unoffered("text_cfg", text)?;
    let activation = match &model_cfg["quick_gelu"] {
        Value::Bool(true) => Activation::QuickGelu,
        Value::Bool(false) | Value::Null => Activation::Gelu,
        other => return Err(wrong("model_cfg", "quick_gelu", other, "true or false")),
    };
    let embed_dim = number(model_cfg, "model_cfg", "embed_dim", None)?;
    let image = image_config(vision, activation, embed_dim)?;
    let text = TextTowerConfig::Clip(text_config(text, activation)?);
    let loss = match model_cfg["init_logit_bias"].is_null() {
        true => ContrastiveLoss::InfoNce,
        false => ContrastiveLoss::Siglip,
    };
    image.validate()?;
    text.validate()?;
    Ok(ClipConfig { loss, ..ClipConfig::new(embed_dim, image, text) })
}

fn refuse_unoffered(place: &str, config: &Value) -> Result<()> {
    let refuse = |name: &str, value: &Value| {
        let tower = match name {
            "timm_model_name" => ": towers of timm are not offered",
            "hf_model_name" => ": Hugging Face's text towers inside open_clip are not offered",
            _ => " is not offered",
        };
        Err(Error::Model(format!("{place}.{name} = {value}{tower}")))
    };
    for name in UNOFFERED {
        let value = &config[name];
        if !(value.is_null() || *value == json!(false) || *value == json!("")) {
            return refuse(name, value);
        }
    }
    for (name, plain) in PLAIN_WORDS {
        if let Some(value) =
            config.get(name).filter(|value| value.as_str().is_some_and(|word| !plain.contains(&word)))
        {
            return refuse(name, value);
        }
    }
    Ok(())
}

fn number(config: &Value, place: &str, name: &str, default: Option<i64>) -> Result<i64> {
    match (&config[name], default) {
        (Value::Null, Some(default)) => Ok(default),
        (value, _) => {
            let number = value.as_i64().ok_or_else(|| wrong(place, name, value, "a whole number"))?;
            check_sizes(&[(&format!("{place}.{name}"), number)]).map_err(Error::Model)?;
            Ok(number)
        }
    }
}

/// A number with a fraction.
fn decimal(config: &Value, place: &str, name: &str, default: f64) -> Result<f64> {
    match &config[name] {
        Value::Null => Ok(default),
        value => value.as_f64().ok_or_else(|| wrong(place, name, value, "a number")),
    }
}

fn wrong(place: &str, name: &str, value: &Value, expected: &str) -> Error {
    Error::Model(format!("{place}.{name} is {value}: expected {expected}"))
}

/// A square's side, written as a number or as two that are equal.
fn side(config: &Value, name: &str, default: i64) -> Result<i64> {
    match &config[name] {
        Value::Array(sides) if sides.len() == 2 && sides[0] == sides[1] => {
            number(&json!({ name: sides[0] }), "vision_cfg", name, None)
        }
        Value::Array(sides) => {
            Err(Error::Model(format!("vision_cfg.{name} is {sides:?}: only squares are offered")))
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
        form: VitVariant::Clip,
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

fn text_config(config: &Value, activation: Activation) -> Result<ClipTextConfig> {
    let width = number(config, "text_cfg", "width", Some(512))?;
    let vocab_size = number(config, "text_cfg", "vocab_size", Some(49408))?;
    let eos_token_id = match config["pool_type"].as_str() {
        Some("eos") => match number(config, "text_cfg", "eos_id", Some(ClipTextConfig::LARGEST_ID))? {
            ClipTextConfig::LARGEST_ID => {
                let problem = "text_cfg.eos_id = 2 is not offered with pool_type eos: it is the mark of the largest id here";
                return Err(Error::Model(problem.to_owned()));
            }
            eos_id => eos_id,
        },
        _ => ClipTextConfig::LARGEST_ID,
    };
    Ok(ClipTextConfig {
        form: ClipTextVariant::Clip,
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
        kwargs => Err(Error::Model(format!("act_kwargs = {kwargs} is not offered"))),
    }
}

/// The `model_cfg` of `config`.
///
/// # Errors
/// open_clip has no towers of this form of its own.
pub(super) fn write(config: &ClipConfig) -> Result<Value> {
    let absent = |what: &str| {
        Error::Model(format!("open_clip has no {what} of its own: keep it in Hugging Face's form"))
    };
    let TextTowerConfig::Clip(text) = &config.text else { return Err(absent(&config.text.describe())) };
    if text.form != ClipTextVariant::Clip {
        return Err(absent("text tower in SigLIP's form (it takes timm's)"));
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
    let (vision_cfg, activation) = match &config.image {
        ImageTowerConfig::Vit(vit) if vit.form == VitVariant::Clip => {
            let mut vision_cfg = json!({
                "image_size": vit.image_size,
                "layers": vit.num_hidden_layers,
                "width": vit.hidden_size,
                "head_width": vit.hidden_size / vit.num_attention_heads,
                "patch_size": vit.patch_size,
            });
            extend(
                &mut vision_cfg,
                vit.hidden_size,
                vit.intermediate_size,
                vit.layer_norm_eps,
                vit.hidden_act,
            );
            if vit.patch_dropout > 0.0 {
                vision_cfg["patch_dropout"] = vit.patch_dropout.into();
            }
            (vision_cfg, vit.hidden_act)
        }
        ImageTowerConfig::ModifiedResNet(resnet) => {
            let head_width = resnet.width * 32 / resnet.heads;
            let (layers, image_size) = (resnet.layers, resnet.image_size);
            (
                json!({ "image_size": image_size, "layers": layers, "width": resnet.width, "head_width": head_width }),
                text.hidden_act,
            )
        }
        other => return Err(absent(&format!("{} (it takes timm's towers)", other.describe()))),
    };
    let is_quick = |activation| activation == Activation::QuickGelu;
    if is_quick(activation) != is_quick(text.hidden_act)
        || [activation, text.hidden_act].contains(&Activation::Relu)
    {
        return Err(absent("pair of towers with these activations"));
    }
    let mut model_cfg = json!({
        "embed_dim": config.embed_dim,
        "quick_gelu": is_quick(activation),
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    });
    if config.loss == ContrastiveLoss::Siglip {
        model_cfg["init_logit_bias"] = (-10).into();
        model_cfg["nonscalar_logit_scale"] = true.into();
    }
    Ok(model_cfg)
}

/// Adds to a tower's config what is not open_clip's default.
fn extend(config: &mut Value, width: i64, mlp_width: i64, eps: f64, activation: Activation) {
    if mlp_width != 4 * width {
        // Readers round the product down, which may lie below the width by the rounding of the ratio.
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

/// The config of a state dict as OpenAI released them, from the shapes of its tensors.
///
/// # Errors
/// It is not one of these.
pub(super) fn infer(weights: &Weights) -> Result<ClipConfig> {
    read(&told_by_shapes(weights)?)
}

/// The `model_cfg` that OpenAI's own code, and open_clip's after it, make of a state dict.
fn told_by_shapes(weights: &Weights) -> Result<Value> {
    let size = |name: &str, dimension: usize| {
        let shape = weights.shape(name).and_then(|shape| shape.get(dimension));
        shape.map(|&n| n as i64).ok_or_else(|| {
            let problem = format!("neither config.json nor open_clip_config.json is here, and without {name} the weights are not OpenAI's either");
            Error::Folder { path: weights.path().to_owned(), problem }
        })
    };
    let blocks =
        |prefix: &str| (0..).take_while(|index| weights.has_prefix(&format!("{prefix}.{index}."))).count();
    let root = |count: i64| ((count - 1) as f64).sqrt().round() as i64;
    let width = size("ln_final.weight", 0)?;
    let mut vision_cfg = if weights.shape("visual.proj").is_some() {
        let (width, patch) = (size("visual.conv1.weight", 0)?, size("visual.conv1.weight", 3)?);
        json!({
            "width": width,
            "layers": blocks("visual.transformer.resblocks"),
            "patch_size": patch,
            "image_size": patch.saturating_mul(root(size("visual.positional_embedding", 0)?)),
        })
    } else {
        let layers = [1, 2, 3, 4].map(|stage| blocks(&format!("visual.layer{stage}")));
        json!({
            "width": size("visual.layer1.0.conv1.weight", 0)?,
            "layers": layers,
            "image_size": 32 * root(size("visual.attnpool.positional_embedding", 0)?),
        })
    };
    vision_cfg["head_width"] = HEAD_WIDTH.into();
    Ok(json!({
        "embed_dim": size("text_projection", 1)?,
        "quick_gelu": true,
        "vision_cfg": vision_cfg,
        "text_cfg": {
            "context_length": size("positional_embedding", 0)?,
            "vocab_size": size("token_embedding.weight", 0)?,
            "width": width,
            "heads": width / HEAD_WIDTH,
            "layers": blocks("transformer.resblocks"),
        },
    }))
}

/// Refuses a model whose tensors do not tell its config by their shapes, which is all that OpenAI's form has
/// of it.
///
/// # Errors
/// The first field that readers would take for another.
pub(super) fn check_told_by_shapes(config: &ClipConfig, weights: &Weights) -> Result<()> {
    let (own, told) = (write(config)?, told_by_shapes(weights)?);
    let fields = |config: &Value| -> Vec<(String, Value)> {
        let parts = ["vision_cfg", "text_cfg"].map(|part| (format!("{part}."), config[part].clone()));
        let all = parts.into_iter().chain([(String::new(), config.clone())]);
        all.flat_map(|(place, part)| {
            let named =
                part.as_object().cloned().into_iter().flatten().filter(|(_, value)| !value.is_object());
            named.map(|(name, value)| (format!("{place}{name}"), value)).collect::<Vec<_>>()
        })
        .collect()
    };
    let (own, told) = (fields(&own), fields(&told));
    match own.iter().find(|field| !told.contains(field)) {
        None => Ok(()),
        Some((name, value)) => {
            let other = told.iter().find(|(other, _)| other == name).map_or(&Value::Null, |(_, other)| other);
            let other = if other.is_null() { "open_clip's default".to_owned() } else { other.to_string() };
            let reason =
                format!("its {name} is {value}, and readers would take {other}: keep it in another form");
            Err(Error::Model(format!("OpenAI's form has no place for the model's config: {reason}")))
        }
    }
}

/// What a `text_cfg` says of the tokenizer.
#[derive(Debug, PartialEq)]
pub(super) struct TokenizerSettings<'a> {
    /// The name of one that is not OpenAI's own.
    pub name: Option<&'a str>,
    /// How texts are cleaned, where it is said.
    pub clean: Option<TextClean>,
}

impl TokenizerSettings<'_> {
    /// How open_clip cleans texts where its config does not say it.
    pub fn default_clean(&self) -> TextClean {
        if self.name.is_some() { TextClean::Whitespace } else { TextClean::Lower }
    }
}

/// What `text_cfg` says of the tokenizer.
///
/// # Errors
/// It has a setting that is not offered.
pub(super) fn tokenizer_settings(text_cfg: &Value) -> Result<TokenizerSettings<'_>> {
    let refuse =
        |name: &str| Err(Error::Model(format!("text_cfg.{name} = {} is not offered", text_cfg[name])));
    if !(text_cfg["tokenizer_mode"].is_null() || text_cfg["tokenizer_mode"] == json!("")) {
        return refuse("tokenizer_mode");
    }
    let mut clean = None;
    match &text_cfg["tokenizer_kwargs"] {
        Value::Null => {}
        Value::Object(settings) => {
            for (name, value) in settings {
                let known =
                    value.as_str().and_then(TextClean::from_name).filter(|&known| known != TextClean::None);
                let is_off = name == "strip_sep_token" && *value == json!(false);
                match (name.as_str(), known) {
                    ("clean", Some(known)) => clean = Some(known),
                    _ if is_off => {}
                    _ => return refuse("tokenizer_kwargs"),
                }
            }
        }
        _ => return refuse("tokenizer_kwargs"),
    }
    let name = text_cfg["hf_tokenizer_name"].as_str().filter(|name| !name.is_empty());
    Ok(TokenizerSettings { name, clean })
}

/// Writes what open_clip needs to know of `tokenizer` into `text_cfg`.
pub(super) fn set_tokenizer(text_cfg: &mut Value, tokenizer: &Tokenizer) {
    if !tokenizer.is_openai_clip() {
        // open_clip then reads the files beside its config; of a folder, it takes any name for them.
        text_cfg["hf_tokenizer_name"] = "local-dir".into();
    }
    let name = text_cfg["hf_tokenizer_name"].as_str();
    let default = TokenizerSettings { name, clean: None }.default_clean();
    let clean = tokenizer.text_clean();
    // open_clip has no name for not cleaning; our own readers find it in tokenizer_config.json.
    if ![TextClean::None, default].contains(&clean) {
        text_cfg["tokenizer_kwargs"] = json!({ "clean": clean });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_named_with_its_cleaning_and_other_settings_are_refused() {
        let settings = |config: Value| {
            tokenizer_settings(&config).map(|found| (found.name.map(str::to_owned), found.clean))
        };
        let named = json!({ "hf_tokenizer_name": "org/name", "tokenizer_kwargs": {} });
        assert_eq!(settings(named).unwrap(), (Some("org/name".to_owned()), None));
        let kwargs = json!({ "clean": "canonicalize", "strip_sep_token": false });
        let own = json!({ "hf_tokenizer_name": "", "tokenizer_kwargs": kwargs });
        assert_eq!(settings(own).unwrap(), (None, Some(TextClean::Canonicalize)));
        for (setting, value) in [
            ("tokenizer_mode", json!("clips")),
            ("tokenizer_kwargs", json!({ "strip_sep_token": true })),
            ("tokenizer_kwargs", json!({ "clean": "none" })),
            ("tokenizer_kwargs", json!({ "reduction_mask": "simple" })),
        ] {
            let error = settings(json!({ setting: value })).unwrap_err().to_string();
            assert!(error.contains(&format!("text_cfg.{setting} = {value}")), "{error}");
        }
    }
}
