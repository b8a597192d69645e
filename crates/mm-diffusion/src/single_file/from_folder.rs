//! A diffusers folder as one file.

use super::config::{HEAD, SECOND_ACTIVATION};
use super::kind::{self, Shapes};
use super::write::tensors;
use super::{DiffusersParts, Family, SingleFile};
use crate::pipeline::{INDEX_FILE, WEIGHTS};
use crate::unet::UNetConfig;
use crate::vae::VaeConfig;
use crate::{Error, Result};
use mm_core::checkpoint::{Weights, write};
use mm_core::hf::HfFolder;
use mm_core::nn::Activation;
use mm_core::read_json;
use mm_text::{ClipTextConfig, ClipTextVariant};
use serde_json::{Value, json};
use std::path::Path;
use tch::Kind;

/// Settings that change no number: sizes that are only suggested, and the type in which a reader computes.
const NOT_COMPARED: [&str; 2] = ["sample_size", "force_upcast"];

/// Writes the diffusers pipeline in `folder` as one file, in numbers of `kind`. Its scheduler and tokenizers
/// have no place there, and neither has a setting that is not the size of a tensor: readers assume those of
/// the published models.
///
/// # Errors
/// As [`write_single_file`](super::write_single_file); the pipeline is not of SD 1, SD 2 or SDXL, or has
/// another setting than readers assume, which is named.
pub fn single_file_of_folder(folder: &Path, file: &Path, kind: Kind) -> Result<()> {
    let bad = |problem: String| Error::folder(folder, problem);
    let index: Value = read_json(&folder.join(INDEX_FILE))?;
    let text = text_config(folder, "text_encoder")?;
    let family = match index["_class_name"].as_str().unwrap_or_default() {
        class if class.starts_with("StableDiffusionXL") => Family::Sdxl,
        class if class.starts_with("StableDiffusion3") || !class.starts_with("StableDiffusion") => {
            return Err(bad(format!("{class} has no form in one file: SD 1, SD 2 and SDXL have")));
        }
        _ if text.hidden_act == Activation::Gelu => Family::Sd2,
        _ => Family::Sd1,
    };
    let weights = |part: &str, stem: &str| HfFolder::at(folder.join(part)).weights(stem);
    let (unet, vae) = (weights("unet", WEIGHTS)?, weights("vae", WEIGHTS)?);
    let text_encoder = weights("text_encoder", "model")?;
    let (mut text_encoder_2, mut texts): (Option<Weights>, _) =
        (None, vec![("text_encoder", text, family.activation())]);
    if family == Family::Sdxl {
        text_encoder_2 = Some(weights("text_encoder_2", "model")?);
        texts.push(("text_encoder_2", text_config(folder, "text_encoder_2")?, SECOND_ACTIVATION));
    }
    let parts = DiffusersParts {
        unet: &unet,
        vae: &vae,
        text_encoder: &text_encoder,
        text_encoder_2: text_encoder_2.as_ref(),
    };
    let tensors = tensors(family, parts, kind)?;
    let shapes: Shapes = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.size().iter().map(|&size| size as usize).collect()))
        .collect();
    let kind = kind::Kind::detect(&shapes).map_err(bad)?;
    check(folder, &SingleFile { path: file.to_owned(), kind, shapes }, &texts)?;
    Ok(write(file, &tensors)?)
}

fn text_config(folder: &Path, part: &str) -> Result<ClipTextConfig> {
    let config: Value = HfFolder::at(folder.join(part)).config()?;
    Ok(ClipTextConfig::from_hf(&config, ClipTextVariant::Clip)?)
}

/// Checks that readers of `file` assume the settings of `folder`, whose text encoders have the configs
/// `texts`, each with the activation that is assumed.
fn check(folder: &Path, file: &SingleFile, texts: &[(&str, ClipTextConfig, &str)]) -> Result<()> {
    let config = |part: &str| -> Result<Value> { Ok(HfFolder::at(folder.join(part)).config()?) };
    let mut compared = vec![
        (
            "unet",
            UNetConfig::from_hf(&config("unet")?)?.to_hf(),
            overlaid(UNetConfig::default().to_hf(), file.unet_config()?),
        ),
        (
            "vae",
            VaeConfig::from_hf(&config("vae")?)?.to_hf(),
            overlaid(VaeConfig::default().to_hf(), file.vae_config()?),
        ),
    ];
    for (part, config, activation) in texts {
        let heads = (config.hidden_size / HEAD as i64).max(1);
        let settings = |act: &str, heads: i64, eps: f64| {
            json!({
                "hidden_act": act,
                "num_attention_heads": heads,
                "layer_norm_eps": eps,
            })
        };
        let own = settings(config.hidden_act.name(), config.num_attention_heads, config.layer_norm_eps);
        compared.push((part, own, settings(activation, heads, 1e-5)));
    }
    for (part, own, assumed) in compared {
        if let Some(problem) = difference(&own, &assumed) {
            let problem = format!("{part}: {problem}, so it has no form in one file");
            return Err(Error::folder(folder, problem));
        }
    }
    Ok(())
}

/// `defaults` with the settings of `config` in their place.
fn overlaid(mut defaults: Value, config: Value) -> Value {
    if let Value::Object(settings) = config {
        settings.into_iter().for_each(|(name, setting)| defaults[name] = setting);
    }
    defaults
}

/// The first setting of a config that is another than the one that readers assume.
fn difference(own: &Value, assumed: &Value) -> Option<String> {
    let mut settings = own.as_object()?.iter().filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
    let (name, own) = settings.find(|(name, own)| !is_same(own, &assumed[name.as_str()]))?;
    Some(format!("{name} is {own} and readers assume {}", assumed[name.as_str()]))
}

/// Whether two settings mean the same: one number for all blocks may stand as a list.
fn is_same(own: &Value, assumed: &Value) -> bool {
    match (own, assumed) {
        (Value::Number(own), Value::Number(assumed)) => own.as_f64() == assumed.as_f64(),
        (Value::Array(each), all @ Value::Number(_)) | (all @ Value::Number(_), Value::Array(each)) => {
            each.iter().all(|one| is_same(one, all))
        }
        (own, assumed) => own == assumed,
    }
}
