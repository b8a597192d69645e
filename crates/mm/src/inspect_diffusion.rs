//! `mm inspect` of diffusion models: pipelines, LoRA files, textual inversions, checkpoints in one file.

use crate::images::scheduler_in_short;
use crate::inspect::{Contents, FileFacts};
use crate::{output, table};
use anyhow::{Context, Result};
use mm_core::checkpoint::TensorInfo;
use mm_core::hf::HfFolder;
use mm_core::{hub, read_json};
use mm_diffusion::VaeConfig;
use mm_diffusion::lora::{ComponentReport, LoraReport};
use mm_diffusion::schedulers::SchedulerConfig;
use mm_diffusion::single_file::SingleFile;
use mm_diffusion::textual_inversion::TextualInversion;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The list of a pipeline's parts.
const INDEX_FILE: &str = "model_index.json";

/// The stems of a part's weights: as diffusers and as transformers name them.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// The folder of `model`, where it is a pipeline of diffusers.
pub fn pipeline_folder(model: &str) -> Option<PathBuf> {
    hub::resolve(model).ok().filter(|folder| folder.join(INDEX_FILE).exists())
}

/// The contents of the pipeline in `folder`.
pub fn pipeline(folder: &Path) -> Result<Contents> {
    let index: Value = read_json(&folder.join(INDEX_FILE))?;
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = vec![("form", "diffusers".to_owned()), ("pipeline", word(&index["_class_name"]))];
    let mut contents =
        Contents { lines: Vec::new(), facts: Value::Null, tensors: Vec::new(), files: Vec::new() };
    let mut parts = Vec::new();
    for (part, class) in index.as_object().into_iter().flatten() {
        let Some(class) = class.get(1).and_then(Value::as_str) else { continue };
        parts.push(json!({ "name": part, "class": class, "exists": folder.join(part).is_dir() }));
        let note = if folder.join(part).is_dir() { "" } else { ", which is missing" };
        lines.push((if parts.len() == 1 { "parts" } else { "" }, format!("{part}: {class}{note}")));
        add_weights(folder, part, &mut contents)?;
    }
    let size = image_size(folder)?;
    lines.extend(size.map(|size| ("image size", format!("{size} x {size} pixels"))));
    let file = folder.join("scheduler/scheduler_config.json");
    let scheduler = file.exists().then(|| SchedulerConfig::read(&file)).transpose()?;
    let scheduler = scheduler.map(|scheduler| scheduler.effective());
    if let Some(scheduler) = &scheduler {
        lines.push(("scheduler", scheduler_in_short(scheduler)));
        let settings = scheduler.as_object().into_iter().flatten().filter(|(key, _)| !key.starts_with('_'));
        lines.extend(settings.map(|(key, value)| ("", format!("{key} = {value}"))));
    }
    let has_checker = !index["safety_checker"][1].is_null();
    let checker = if has_checker { "there; mm generate applies it" } else { "none" };
    lines.push(("safety checker", checker.to_owned()));
    let facts = json!({
        "form": "diffusers",
        "pipeline": index["_class_name"],
        "parts": parts,
        "image_size": size,
        "scheduler": scheduler,
        "safety_checker": has_checker,
    });
    Ok(Contents { lines, facts, ..contents })
}

/// Adds the tensors and files of `part`, where it has weights, under its name.
fn add_weights(folder: &Path, part: &str, contents: &mut Contents) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder.join(part)) else { return Ok(()) };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let has = |stem: &&&str| {
        let is_weights = |name: &&String| name.starts_with(**stem) && name.contains(".safetensors");
        names.iter().find(is_weights).is_some()
    };
    let Some(stem) = STEMS.iter().find(has) else { return Ok(()) };
    let weights = HfFolder::at(folder.join(part)).weights(stem)?;
    let named = |tensor: TensorInfo| TensorInfo { name: format!("{part}.{}", tensor.name), ..tensor };
    contents.tensors.extend(weights.list().into_iter().map(named));
    for file in weights.files() {
        let facts = FileFacts::of(file)?;
        contents.files.push(FileFacts { name: format!("{part}/{}", facts.name), ..facts });
    }
    Ok(())
}

/// The side of the images that the pipeline is made for.
fn image_size(folder: &Path) -> Result<Option<i64>> {
    let config = |part: &str| {
        let files = HfFolder::at(folder.join(part));
        files.has("config.json").then(|| files.config::<Value>()).transpose()
    };
    let denoiser = config("unet")?.or(config("transformer")?);
    let reduction = match config("vae")? {
        Some(vae) => VaeConfig::from_hf(&vae)?.reduction(),
        None => 1,
    };
    Ok(denoiser.and_then(|config| config["sample_size"].as_i64()).map(|size| size.saturating_mul(reduction)))
}

/// Whether `path` is a file of weights, or a folder of PEFT's.
pub fn is_weights(path: &Path) -> bool {
    let is_file = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"));
    path.is_file() && is_file || path.join("adapter_config.json").exists()
}

/// Prints what the weights at `path` are: most files without a folder are LoRAs.
pub fn weights(path: &Path, as_json: bool) -> Result<()> {
    let report = match LoraReport::read(path) {
        Ok(report) => report,
        Err(error) => {
            let summary = other_weights(path).ok_or(error);
            let (facts, line) = summary.with_context(|| format!("cannot tell what {} is", path.display()))?;
            return if as_json { output::print(&format!("{facts:#}\n")) } else { output::print_line(line) };
        }
    };
    if as_json {
        let component = |part: &ComponentReport| {
            let ComponentReport { layers, convolutions, ranks, alphas, .. } = part;
            let name = part.component.map(|component| component.name());
            json!({
                "component": name, "layers": layers, "convolutions": convolutions, "ranks": ranks,
                "alphas": alphas,
            })
        };
        let components: Vec<Value> = report.components.iter().map(component).collect();
        let facts = json!({ "form": "lora", "spellings": report.spellings, "components": components });
        return output::print(&format!("{facts:#}\n"));
    }
    let row = |part: &ComponentReport| {
        let name = part.component.map_or("not named", |component| component.name());
        let counts = [part.layers, part.convolutions].map(|count| count.to_string());
        let alphas = if part.alphas.is_empty() { "-".to_owned() } else { listed(&part.alphas) };
        [&[name.to_owned()][..], &counts, &[listed(&part.ranks), alphas]].concat()
    };
    let rows: Vec<_> = report.components.iter().map(row).collect();
    let header = ["component", "layers", "convolutions", "ranks", "alphas"];
    output::print(&format!(
        "LoRA in the spelling of {}\n\n{}",
        report.spellings.join(" and "),
        table::render(&header, &rows)
    ))
}

/// What a file that is no LoRA is, as JSON and as a line.
fn other_weights(path: &Path) -> Option<(Value, String)> {
    if let Ok(inversion) = TextualInversion::open(path, None) {
        let (token, vectors) = (inversion.token(), inversion.vectors().size());
        let encoders = 1 + usize::from(inversion.vectors_2().is_some());
        let facts = json!({
            "form": "textual_inversion", "token": token, "vectors": vectors[0], "text_encoders": encoders,
        });
        let both = if encoders == 2 { ", for both text encoders of SDXL" } else { "" };
        let (count, width) = (vectors[0], vectors[1]);
        let line = format!("textual inversion of the token {token}: {count} x {width} numbers{both}");
        return Some((facts, line));
    }
    let kind = SingleFile::open(path).ok()?.kind();
    let (family, variant) = (format!("{:?}", kind.family), format!("{:?}", kind.variant));
    let line = format!("checkpoint in one file: {family}, {variant}");
    Some((json!({ "form": "single_file", "family": family, "variant": variant }), line))
}

fn listed(numbers: &[impl ToString]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
