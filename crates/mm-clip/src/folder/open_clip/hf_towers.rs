//! Models of open_clip with a ViT of timm and a BERT of transformers, as BiomedCLIP (Zhang et al. 2023).
//!
//! Their `open_clip_config.json` names both towers instead of giving their sizes.

use super::{HEAD_WIDTH, absent, decimal, number, side, wrong};
use crate::{ClipConfig, Error, Result};
use mm_core::checkpoint::Weights;
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_text::{BertConfig, BertPooling, TextTowerConfig};
use mm_vision::{ImageTowerConfig, VitConfig};
use serde_json::{Value, json};

/// A model on the hub with the sizes of [`BertConfig::default`].
const BERT_BASE: &str = "google-bert/bert-base-uncased";

/// open_clip's default of `context_length`.
const DEFAULT_CONTEXT_LENGTH: i64 = 77;

/// The names of pooling in `text_cfg`. `cls_pooler` is the only one with BERT's own pooler after it.
const POOLERS: [(&str, BertPooling); 3] = [
    ("cls_last_hidden_state_pooler", BertPooling::Cls),
    ("mean_pooler", BertPooling::Mean),
    ("cls_pooler", BertPooling::Pooler),
];

/// Whether both towers of `model_cfg` are named: one of timm and one of transformers.
pub(in crate::folder) fn has_hf_towers(model_cfg: &Value) -> bool {
    timm_name(model_cfg).is_some() && hf_name(model_cfg).is_some()
}

/// The name of timm's image tower, if the model has one.
pub(super) fn timm_name(model_cfg: &Value) -> Option<&str> {
    model_cfg["vision_cfg"]["timm_model_name"].as_str().filter(|name| !name.is_empty())
}

/// The name of transformers' text tower, if the model has one.
pub(in crate::folder) fn hf_name(model_cfg: &Value) -> Option<&str> {
    model_cfg["text_cfg"]["hf_model_name"].as_str().filter(|name| !name.is_empty())
}

/// The number of tokens at which the texts of such a model are cut: open_clip's `context_length`, which may
/// be below the positions of the BERT.
pub(in crate::folder) fn context_length(text_cfg: &Value) -> Result<i64> {
    number(text_cfg, "text_cfg", "context_length", Some(DEFAULT_CONTEXT_LENGTH))
}

/// The config of the text tower: `config.json` in `folder`, as transformers writes it. Without that file, the
/// sizes are those of the tensors and heads are 64 wide, as in every BERT that Google released.
///
/// # Errors
/// `config.json` is of another model, or the tensors are not a BERT's.
pub(in crate::folder) fn text_config(folder: &HfFolder, weights: &Weights) -> Result<Value> {
    if !folder.has(CONFIG_FILE) {
        let shown = folder.path().display();
        tracing::info!("{shown} has no config.json of the text tower: sizes are those of its tensors");
        return config_of_shapes(weights);
    }
    let config: Value = folder.config()?;
    if config["model_type"] == "bert" {
        return Ok(config);
    }
    let model_type = &config["model_type"];
    let problem = format!("model_type is {model_type}, but a text tower inside open_clip must be a bert");
    Err(Error::Folder { path: folder.file(CONFIG_FILE), problem })
}

fn config_of_shapes(weights: &Weights) -> Result<Value> {
    let size = |name: &str, dimension: usize| {
        let name = format!("text.transformer.{name}.weight");
        let shape = weights.shape(&name).and_then(|shape| shape.get(dimension));
        shape.map(|&n| n as i64).ok_or_else(|| {
            let problem = format!(
                "has no {name}: only a BERT is supported as a text tower of transformers inside open_clip"
            );
            Error::Folder { path: weights.path().to_owned(), problem }
        })
    };
    let width = size("embeddings.word_embeddings", 1)?;
    let layers =
        (0..).take_while(|layer| weights.has_prefix(&format!("text.transformer.encoder.layer.{layer}.")));
    let segments = size("embeddings.token_type_embeddings", 0)?;
    if segments < 2 {
        // Its positions are counted in another way.
        let problem = "the text tower is a RoBERTa, of one segment: only a BERT is supported".to_owned();
        return Err(Error::Folder { path: weights.path().to_owned(), problem });
    }
    Ok(json!({
        "model_type": "bert",
        "vocab_size": size("embeddings.word_embeddings", 0)?,
        "hidden_size": width,
        "num_hidden_layers": layers.count(),
        "num_attention_heads": width / HEAD_WIDTH,
        "intermediate_size": size("encoder.layer.0.intermediate.dense", 0)?,
        "max_position_embeddings": size("embeddings.position_embeddings", 0)?,
        "type_vocab_size": segments,
    }))
}

/// The model of a `model_cfg` with [`has_hf_towers`], whose text tower has the config `text_config`.
pub(super) fn read(model_cfg: &Value, text_config: &Value, embed_dim: i64) -> Result<ClipConfig> {
    let text_cfg = &model_cfg["text_cfg"];
    let image =
        ImageTowerConfig::Vit(vit(&model_cfg["vision_cfg"], timm_name(model_cfg).unwrap_or_default())?);
    let bert = BertConfig::from_hf(text_config, pooling(text_cfg)?)?;
    let width = bert.hidden_size;
    let config = ClipConfig::new(embed_dim, image, TextTowerConfig::Bert(bert));
    let (name, projection) = setting(text_cfg, "hf_proj_type", "proj", "mlp");
    match &projection {
        Value::String(kind) if kind == "linear" => Ok(config),
        Value::String(kind) if kind == "mlp" => {
            Ok(ClipConfig { text_projection_hidden_size: Some(mlp_width(width, embed_dim)), ..config })
        }
        Value::Null if width == embed_dim => Ok(ClipConfig { text_projection: false, ..config }),
        other => Err(wrong("text_cfg", name, other, "\"mlp\" or \"linear\"")),
    }
}

/// The width between the layers of open_clip's `mlp` after a text tower.
fn mlp_width(width: i64, embed_dim: i64) -> i64 {
    (width + embed_dim) / 2
}

/// The setting `name` of `text_cfg`, which before open_clip 2.17 was named `former`.
fn setting<'a>(text_cfg: &Value, name: &'a str, former: &'a str, default: &str) -> (&'a str, Value) {
    let given = [name, former].into_iter().find_map(|name| Some((name, text_cfg.get(name)?.clone())));
    given.unwrap_or_else(|| (name, default.into()))
}

fn pooling(text_cfg: &Value) -> Result<BertPooling> {
    let (name, pooler) = setting(text_cfg, "hf_pooler_type", "pooler_type", "mean_pooler");
    let known = POOLERS.into_iter().find(|(name, _)| pooler == *name);
    known.map(|(_, pooling)| pooling).ok_or_else(|| {
        let expected = POOLERS.map(|(name, _)| name).join(", ");
        wrong("text_cfg", name, &pooler, &expected)
    })
}

/// The ViT of timm with the settings of `vision_cfg`.
fn vit(vision_cfg: &Value, name: &str) -> Result<VitConfig> {
    let vit = VitConfig::from_timm(name)
        .map_err(|error| Error::Model(format!("vision_cfg.timm_model_name: {error}")))?;
    let check = |name: &str, default: Value, offered: &[&str]| {
        let value = vision_cfg.get(name).unwrap_or(&default);
        let is_offered = offered.iter().any(|offered| value == offered);
        let expected = offered.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        if is_offered { Ok(()) } else { Err(wrong("vision_cfg", name, value, &expected)) }
    };
    // The pooling of the model itself, "", is by the class token.
    check("timm_pool", "avg".into(), &["", "token"])?;
    check("timm_proj", "linear".into(), &["linear"])?;
    if vision_cfg["timm_proj_bias"] == true {
        return Err(wrong("vision_cfg", "timm_proj_bias", &json!(true), "false"));
    }
    let size = side(vision_cfg, "image_size", 224)?;
    if size != vit.image_size {
        let problem = format!(
            "vision_cfg.image_size is {size}, but images of {name} are of {0} x {0} pixels",
            vit.image_size
        );
        return Err(Error::Model(problem));
    }
    Ok(VitConfig { patch_dropout: decimal(vision_cfg, "vision_cfg", "patch_dropout", 0.0)?, ..vit })
}

/// The `model_cfg` of `config` with a `vit` and a `bert`. open_clip builds the text tower from the config of
/// `hf_model_name`.
///
/// # Errors
/// timm has no name for the ViT, open_clip no setting for a projection, or the BERT has no name.
pub(super) fn write(
    config: &ClipConfig,
    vit: &VitConfig,
    bert: &BertConfig,
    hf_model_name: Option<&str>,
) -> Result<Value> {
    if !config.image_projection {
        return Err(absent("image tower without its projection"));
    }
    let timm_name =
        vit.timm_name().ok_or_else(|| absent("ViT of these sizes, and timm has no name for it"))?;
    let projection = match (config.text_projection_to(), config.text_projection_hidden_size) {
        (None, _) => Value::Null,
        (Some(_), None) => "linear".into(),
        (Some(_), Some(hidden)) if hidden == mlp_width(bert.hidden_size, config.embed_dim) => "mlp".into(),
        (Some(_), Some(hidden)) => {
            return Err(absent(&format!("text projection with a hidden width of {hidden}")));
        }
    };
    let pooler = POOLERS.into_iter().find(|(_, pooling)| *pooling == bert.pooling).map(|(name, _)| name);
    let mut vision_cfg = json!({
        "timm_model_name": timm_name,
        "timm_model_pretrained": false,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": vit.image_size,
    });
    if vit.patch_dropout > 0.0 {
        vision_cfg["patch_dropout"] = vit.patch_dropout.into();
    }
    Ok(json!({
        "embed_dim": config.embed_dim,
        "vision_cfg": vision_cfg,
        "text_cfg": {
            "hf_model_name": name_of(bert, hf_model_name)?,
            "hf_proj_type": projection,
            "hf_pooler_type": pooler,
            "context_length": bert.max_position_embeddings,
        },
    }))
}

/// The name of a model on the hub with the config of `bert`: that of the folder which it is from, or the BERT
/// of the same sizes.
fn name_of<'a>(bert: &BertConfig, hf_model_name: Option<&'a str>) -> Result<&'a str> {
    let base = BertConfig {
        pooling: bert.pooling,
        gradient_checkpointing: bert.gradient_checkpointing,
        ..BertConfig::default()
    };
    let same = (*bert == base).then_some(BERT_BASE);
    hf_model_name.or(same).ok_or_else(|| {
        let problem = "open_clip builds a text tower of transformers from the config of a model on the hub, \
                       and no name of one with these sizes is known: keep it in Hugging Face's format";
        Error::Model(problem.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::{read, write};
    use super::*;

    fn biomed_clip() -> Value {
        json!({
            "embed_dim": 512,
            "vision_cfg": {
                "timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": false,
                "timm_pool": "", "timm_proj": "linear", "image_size": 224,
            },
            "text_cfg": {
                "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": 256,
            },
        })
    }

    fn bert() -> Value {
        json!({ "model_type": "bert" })
    }

    #[test]
    fn the_config_of_biomed_clip_is_read_and_written() {
        let config = read(&biomed_clip(), Some(&bert())).unwrap();
        let projection = config.text_projection_to().unwrap();
        assert_eq!((projection.hidden_size, projection.output_size), (Some(640), 512));
        let TextTowerConfig::Bert(tower) = &config.text else { panic!("{:?}", config.text) };
        assert_eq!((tower.pooling, tower.num_attention_heads), (BertPooling::Cls, 12));
        let written = write(&config, Some("org/bert")).unwrap();
        assert_eq!(written["text_cfg"]["hf_model_name"], "org/bert");
        assert_eq!(read(&written, Some(&bert())).unwrap(), config);
        assert_eq!(write(&config, None).unwrap()["text_cfg"]["hf_model_name"], BERT_BASE);

        let mut former = biomed_clip();
        former["text_cfg"] = json!({ "hf_model_name": "b", "proj": "mlp", "context_length": 256,
                                     "pooler_type": "cls_last_hidden_state_pooler" });
        assert_eq!(read(&former, Some(&bert())).unwrap(), config);
    }

    #[test]
    fn settings_that_give_other_towers_are_refused_by_name() {
        for (place, name, value, expected) in [
            ("vision_cfg", "timm_model_name", json!("vitamin_base"), "vitamin_base of timm is not offered"),
            ("vision_cfg", "timm_pool", json!("avg"), "vision_cfg.timm_pool is \"avg\": expected \"\" or"),
            ("vision_cfg", "timm_proj", json!("mlp"), "vision_cfg.timm_proj is \"mlp\""),
            ("vision_cfg", "timm_proj_bias", json!(true), "vision_cfg.timm_proj_bias is true"),
            ("vision_cfg", "image_size", json!(384), "vision_cfg.image_size is 384"),
            ("text_cfg", "hf_pooler_type", json!("max_pooler"), "text_cfg.hf_pooler_type is \"max_pooler\""),
            ("text_cfg", "hf_proj_type", json!(null), "text_cfg.hf_proj_type is null"),
            ("text_cfg", "hf_model_name", json!(""), "with a text tower of open_clip's own is not supported"),
            ("vision_cfg", "timm_model_name", json!(""), "image tower of open_clip's own is not supported"),
        ] {
            let mut model_cfg = biomed_clip();
            model_cfg[place][name] = value;
            let config = bert();
            let text_config = has_hf_towers(&model_cfg).then_some(&config);
            let message = read(&model_cfg, text_config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_model_without_a_name_in_open_clip_is_refused() {
        let config = read(&biomed_clip(), Some(&bert())).unwrap();
        let message = |config: &ClipConfig| write(config, None).unwrap_err().to_string();
        let wide = ClipConfig { text_projection_hidden_size: Some(7), ..config.clone() };
        assert!(message(&wide).contains("hidden width of 7"));
        let small = BertConfig { num_hidden_layers: 2, ..BertConfig::default() };
        let small = ClipConfig { text: TextTowerConfig::Bert(small), ..config.clone() };
        assert!(message(&small).contains("no name of one with these sizes"));
        let image = config.image.with_image_size(448).unwrap();
        assert!(message(&ClipConfig { image, ..small }).contains("timm has no name for it"));
    }
}
