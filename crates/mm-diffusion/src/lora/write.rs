//! Writing LoRA files for other programs.

use super::keys::KOHYA_PREFIXES;
use super::metadata::METADATA_KEY;
use super::modules::TEXT_PREFIX;
use super::{Component, LoraLayers, LoraPair};
use crate::{Error, Result};
use mm_core::checkpoint::write_with_metadata;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// Writes `layers` as PEFT and diffusers do: `unet.MODULE.lora_A.weight`, with the ranks in the header. The
/// scale is part of `lora_B`, so that readers that know no alpha compute the same.
///
/// # Errors
/// There are no layers, a pair is none or has numbers that are not finite, or the file cannot be written.
pub fn write_peft(file: &Path, layers: &LoraLayers) -> Result<()> {
    check(file, layers)?;
    let (mut tensors, mut metadata) = (Vec::new(), Map::new());
    for (component, pairs) in layers {
        for (module, pair) in pairs {
            let stem = format!("{}.{}", component.name(), stored_name(*component, module));
            let up = pair.up.detach();
            let up = if pair.scale() == 1.0 { up } else { up.f_mul_scalar(pair.scale())? };
            tensors.push((format!("{stem}.lora_A.weight"), pair.down.detach()));
            tensors.push((format!("{stem}.lora_B.weight"), up));
        }
        for (field, value) in config(*component, pairs) {
            metadata.insert(format!("{}.{field}", component.name()), value);
        }
    }
    let metadata = Value::Object(metadata).to_string();
    Ok(write_with_metadata(file, &tensors, (METADATA_KEY, metadata))?)
}

/// Writes `layers` as kohya's programs do: `lora_unet_MODULE.lora_down.weight` with underscores for dots, and
/// the alphas as tensors. The layers of SDXL have diffusers' names, which those programs read too.
///
/// All layers of a component get one alpha: diffusers 0.42 passes over alphas that differ.
///
/// # Errors
/// As [`write_peft`].
pub fn write_kohya(file: &Path, layers: &LoraLayers) -> Result<()> {
    check(file, layers)?;
    let has_two = layers.contains_key(&Component::TextEncoder2);
    let mut tensors = Vec::new();
    for (&component, pairs) in layers {
        let prefix = match component {
            Component::TextEncoder if has_two => "lora_te1_",
            // Every component is in the table.
            _ => KOHYA_PREFIXES.iter().find(|(_, of)| *of == component).map_or("", |&(prefix, _)| prefix),
        };
        let alpha_of = |pair: &LoraPair| pair.alpha.unwrap_or(pair.rank() as f64);
        let largest = pairs.values().map(alpha_of).max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
        for (module, pair) in pairs {
            let stem = format!("{prefix}{}", stored_name(component, module).replace('.', "_"));
            let (alpha, up) = (alpha_of(pair), pair.up.detach());
            let up = if alpha == largest { up } else { up.f_mul_scalar(alpha / largest)? };
            tensors.push((format!("{stem}.lora_down.weight"), pair.down.detach()));
            tensors.push((format!("{stem}.lora_up.weight"), up));
            tensors.push((format!("{stem}.alpha"), Tensor::from(largest as f32)));
        }
    }
    Ok(write_with_metadata(file, &tensors, ("ss_network_module", "networks.lora".to_owned()))?)
}

/// Refuses what no reader could use.
fn check(file: &Path, layers: &LoraLayers) -> Result<()> {
    let bad = |problem: String| Error::Lora { path: file.to_owned(), problem };
    if layers.values().all(BTreeMap::is_empty) {
        return Err(bad("there are no layers to write".to_owned()));
    }
    for (component, pairs) in layers {
        for (module, pair) in pairs {
            let named = |problem: String| bad(format!("{}.{module}: {problem}", component.name()));
            let shape =
                [pair.up.size().get(..1), pair.down.size().get(1..)].map(Option::unwrap_or_default).concat();
            pair.check(&shape).map_err(named)?;
            for tensor in [&pair.down, &pair.up] {
                // The sum of magnitudes in f64 is finite if and only if all numbers are.
                if !tensor.f_abs()?.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
                    return Err(named("it has NaN or infinite numbers".to_owned()));
                }
            }
        }
    }
    Ok(())
}

/// The name of a layer in files, which have transformers' old prefix.
fn stored_name(component: Component, module: &str) -> String {
    match component.is_text_encoder() && !module.starts_with("text_") {
        true => format!("{TEXT_PREFIX}{module}"),
        false => module.to_owned(),
    }
}

/// The fields of PEFT's config for layers whose scale is 1. diffusers builds its adapters by them.
fn config(component: Component, pairs: &BTreeMap<String, LoraPair>) -> Vec<(&'static str, Value)> {
    // Without transformers' prefix: its models have dropped it, and PEFT compares the ends of names.
    let short = |module: &str| match component.is_text_encoder() {
        true => module.strip_prefix(TEXT_PREFIX).unwrap_or(module).to_owned(),
        false => module.to_owned(),
    };
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    pairs.values().for_each(|pair| *counts.entry(pair.rank()).or_default() += 1);
    let rank = counts.iter().max_by_key(|(_, count)| **count).map_or(1, |(&rank, _)| rank);
    let targets: Vec<String> = pairs.keys().map(|module| short(module)).collect();
    let others: Map<String, Value> = pairs
        .iter()
        .filter(|(_, pair)| pair.rank() != rank)
        .map(|(module, pair)| (short(module), json!(pair.rank())))
        .collect();
    vec![
        ("peft_type", json!("LORA")),
        ("r", json!(rank)),
        ("lora_alpha", json!(rank)),
        ("rank_pattern", Value::Object(others.clone())),
        ("alpha_pattern", Value::Object(others)),
        ("target_modules", json!(targets)),
        ("lora_dropout", json!(0.0)),
        ("bias", json!("none")),
        ("use_rslora", json!(false)),
        ("use_dora", json!(false)),
        ("fan_in_fan_out", json!(false)),
        ("init_lora_weights", json!(true)),
    ]
}
