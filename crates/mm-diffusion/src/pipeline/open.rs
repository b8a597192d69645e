//! Opening of a diffusers folder.

use super::Denoiser;
use crate::lora::{Component, ComponentModules, LoraFile, LoraReport};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::sd3::{Sd3Config, Sd3Transformer};
use crate::text::{ClipTextEncoder, T5TextEncoder, TextEncoders, TextRules, text_weights};
use crate::unet::{UNet, UNetConfig};
use crate::vae::{Vae, VaeConfig};
use crate::{Error, Result};
use mm_core::checkpoint::Weights;
use mm_core::hf::HfFolder;
use mm_core::{OpenOptions, hub, read_json};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::Device;
use tch::nn::VarStore;

/// The list of a pipeline's parts.
const INDEX_FILE: &str = "model_index.json";

/// The stem of the weights of diffusers' models.
const WEIGHTS: &str = "diffusion_pytorch_model";

/// The class of pipelines in pixels, which are trained here: a transformer without an autoencoder.
pub(crate) const PIXEL_CLASS: &str = "PixelDiffusionPipeline";

/// The family of a pipeline, by the `_class_name` of its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Stable Diffusion 1 and 2, inpainting and LCM included.
    Sd,
    /// InstructPix2Pix.
    Pix2Pix,
    /// SDXL.
    Sdxl,
    /// SD3.
    Sd3,
    /// A transformer in pixels.
    Pixel,
}

/// The classes that are read, each with its family.
const CLASSES: [(&str, Family); 12] = [
    ("StableDiffusionPipeline", Family::Sd),
    ("StableDiffusionImg2ImgPipeline", Family::Sd),
    ("StableDiffusionInpaintPipeline", Family::Sd),
    ("LatentConsistencyModelPipeline", Family::Sd),
    ("StableDiffusionInstructPix2PixPipeline", Family::Pix2Pix),
    ("StableDiffusionXLPipeline", Family::Sdxl),
    ("StableDiffusionXLImg2ImgPipeline", Family::Sdxl),
    ("StableDiffusionXLInpaintPipeline", Family::Sdxl),
    ("StableDiffusion3Pipeline", Family::Sd3),
    ("StableDiffusion3Img2ImgPipeline", Family::Sd3),
    ("StableDiffusion3InpaintPipeline", Family::Sd3),
    (PIXEL_CLASS, Family::Pixel),
];

impl Family {
    fn of(class: &str) -> Result<Self, String> {
        CLASSES.iter().find(|(name, _)| *name == class).map(|&(_, family)| family).ok_or_else(|| {
            let known: Vec<&str> = CLASSES.iter().map(|&(name, _)| name).collect();
            format!("_class_name {class} is not offered: {}", known.join(", "))
        })
    }

    /// Steps and guidance scale where none are asked for: diffusers' defaults of the pipeline.
    pub(crate) fn defaults(self) -> (usize, f64) {
        match self {
            Self::Sd => (50, 7.5),
            Self::Pix2Pix => (100, 7.5),
            Self::Sdxl => (50, 5.0),
            Self::Sd3 => (28, 7.0),
            Self::Pixel => (20, 2.0),
        }
    }

    /// Whether the pipeline's class in diffusers sets `steps_offset` to 1 and `clip_sample` to false.
    fn overrides_scheduler(self) -> bool {
        self == Self::Sd
    }
}

/// How a pipeline is opened.
#[derive(Clone, Debug, Default)]
pub struct PipelineOptions {
    /// Device and precision.
    pub open: OpenOptions,
    /// Another scheduler than the folder's, with the folder's settings.
    pub scheduler: Option<SchedulerKind>,
    /// LoRA files or folders, each with its weight.
    pub loras: Vec<(PathBuf, f64)>,
}

/// A text-to-image model with all its parts, for inference.
#[derive(Debug)]
pub struct DiffusionPipeline {
    pub(crate) family: Family,
    pub(crate) denoiser: Denoiser,
    pub(crate) vae: Option<Vae>,
    pub(crate) text: TextEncoders,
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) device: Device,
    loras: Vec<(PathBuf, f64, LoraReport)>,
    /// Whether the folder has a safety checker.
    has_safety_checker: bool,
}

impl DiffusionPipeline {
    /// Opens the diffusers folder `model`, a path or a hub name.
    ///
    /// # Errors
    /// A part is missing or damaged, the class is not offered, a LoRA does not fit, or the device is not
    /// available.
    pub fn open(model: &str, options: &PipelineOptions) -> Result<Self> {
        let folder = hub::resolve(model)?;
        let index_file = folder.join(INDEX_FILE);
        if !index_file.exists() {
            let problem = format!("has no {INDEX_FILE}: it is no folder of a diffusers pipeline");
            return Err(Error::folder(&folder, problem));
        }
        let index: Value = read_json(&index_file)?;
        let class = index["_class_name"].as_str().unwrap_or_default();
        let family = Family::of(class).map_err(|problem| Error::folder(&index_file, problem))?;
        let device = options.open.resolve_device()?;
        let has = |part: &str| !index[part][1].is_null();
        let need = |part: &str| match folder.join(part).is_dir() {
            true => Ok(()),
            false => Err(Error::folder(&folder, format!("lacks its part {part}/: copy the folder again"))),
        };
        let is_transformer = matches!(family, Family::Sd3 | Family::Pixel);
        let (part, component) =
            if is_transformer { ("transformer", Component::Transformer) } else { ("unet", Component::Unet) };
        for part in [part, "scheduler", "text_encoder", "tokenizer"] {
            need(part)?;
        }
        let two_clips = matches!(family, Family::Sdxl | Family::Sd3);
        if two_clips {
            need("text_encoder_2")?;
            need("tokenizer_2")?;
        }
        let mut scheduler = SchedulerConfig::read(&folder.join("scheduler").join("scheduler_config.json"))?;
        if let Some(kind) = options.scheduler {
            scheduler = scheduler.with_kind(kind)?;
        }
        if family.overrides_scheduler() {
            override_settings(&mut scheduler)?;
        }

        let files = HfFolder::at(folder.join(part));
        let config: Value = files.config()?;
        let mut weights = files.weights(WEIGHTS)?;
        let loras = open_loras(options, &folder, component, &weights, two_clips)?;
        let mut reports = Vec::new();
        for (lora, scale) in &loras {
            lora.apply(component, &mut weights, *scale)?;
            reports.push((lora.path().to_owned(), *scale, lora.report()));
        }
        let denoiser = denoiser(&weights, &config, is_transformer, device)?;
        drop(weights);
        let rules = rules(family, &index, &denoiser);
        let first = ClipTextEncoder::open(&folder, "text_encoder", "tokenizer", &loras, device)?;
        let second = two_clips
            .then(|| ClipTextEncoder::open(&folder, "text_encoder_2", "tokenizer_2", &loras, device))
            .transpose()?;
        let t5 = has("text_encoder_3").then(|| T5TextEncoder::open(&folder, device)).transpose()?;
        let vae = match family {
            Family::Pixel => None,
            _ => {
                need("vae")?;
                Some(vae(&folder.join("vae"), device)?)
            }
        };
        let text = TextEncoders { rules, first, second, t5 };
        let has_safety_checker = has("safety_checker");
        let mut pipeline =
            Self { family, denoiser, vae, text, scheduler, device, loras: reports, has_safety_checker };
        pipeline.check()?;
        let precision = options.open.precision;
        pipeline.denoiser.pack(precision);
        pipeline.text.pack(precision);
        pipeline.vae.iter_mut().for_each(|vae| vae.pack(precision));
        Ok(pipeline)
    }

    /// The scheduler's config, with the pipeline's overrides.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// The LoRAs: file, weight, and what it changes.
    pub fn loras(&self) -> &[(PathBuf, f64, LoraReport)] {
        &self.loras
    }

    /// Whether the folder has a safety checker, which is not applied.
    pub fn has_safety_checker(&self) -> bool {
        self.has_safety_checker
    }

    /// Channels of the latents, or of the pixels of a model without an autoencoder.
    pub(crate) fn latent_channels(&self) -> i64 {
        self.vae.as_ref().map_or(3, |vae| vae.config().latent_channels)
    }

    /// Pixels of a latent's side.
    pub(crate) fn reduction(&self) -> i64 {
        self.vae.as_ref().map_or(1, |vae| vae.config().reduction())
    }

    /// Checks that the parts fit each other.
    fn check(&self) -> Result<()> {
        let (reads, latents) = (self.denoiser.in_channels(), self.latent_channels());
        let known = match self.family {
            Family::Pix2Pix => vec![2 * latents],
            Family::Sd | Family::Sdxl => vec![latents, 2 * latents + 1],
            Family::Sd3 => vec![latents],
            Family::Pixel => vec![latents, 2 * latents],
        };
        if !known.contains(&reads) {
            let known: Vec<String> = known.iter().map(i64::to_string).collect();
            return Err(Error::Model(format!(
                "the denoiser reads {reads} channels, and latents have {latents}: it must read {}",
                known.join(" or ")
            )));
        }
        Ok(())
    }
}

/// What diffusers' pipelines of SD 1 and 2 set in the scheduler's config.
fn override_settings(scheduler: &mut SchedulerConfig) -> Result<()> {
    let effective = scheduler.effective();
    if effective["steps_offset"].as_i64().is_some_and(|offset| offset != 1) {
        scheduler.set("steps_offset", 1)?;
    }
    if effective["clip_sample"] == Value::Bool(true) {
        scheduler.set("clip_sample", false)?;
    }
    Ok(())
}

fn open_loras(
    options: &PipelineOptions,
    folder: &Path,
    component: Component,
    weights: &Weights,
    two_clips: bool,
) -> Result<Vec<(LoraFile, f64)>> {
    if options.loras.is_empty() {
        return Ok(Vec::new());
    }
    let mut modules = ComponentModules::new().with(component, weights);
    let mut texts = vec![Component::TextEncoder];
    texts.extend(two_clips.then_some(Component::TextEncoder2));
    for text in texts {
        modules = modules.with(text, &text_weights(folder, text.name())?);
    }
    options.loras.iter().map(|(path, scale)| Ok((LoraFile::open(path, &modules)?, *scale))).collect()
}

fn denoiser(weights: &Weights, config: &Value, is_transformer: bool, device: Device) -> Result<Denoiser> {
    let store = VarStore::new(device);
    Ok(match is_transformer {
        true => {
            let config = Sd3Config::from_hf(config)?;
            let make = |path: &tch::nn::Path| Sd3Transformer::new(path, &config);
            Denoiser::Transformer(weights.build(&store, &Sd3Transformer::LAYOUT, make)?)
        }
        false => {
            let config = UNetConfig::from_hf(config)?;
            let make = |path: &tch::nn::Path| UNet::new(path, &config);
            Denoiser::UNet(weights.build(&store, &UNet::LAYOUT, make)?)
        }
    })
}

fn vae(folder: &Path, device: Device) -> Result<Vae> {
    let files = HfFolder::at(folder);
    let config = VaeConfig::from_hf(&files.config()?)?;
    let mut weights = files.weights(WEIGHTS)?;
    Vae::rename_old_attention(&mut weights);
    weights.build(&VarStore::new(device), &Vae::LAYOUT, |path| Vae::new(path, &config))
}

fn rules(family: Family, index: &Value, denoiser: &Denoiser) -> TextRules {
    match (family, denoiser) {
        (Family::Pixel, _) => TextRules::Masked,
        (Family::Sd3, Denoiser::Transformer(model)) => {
            TextRules::Sd3 { width: model.config().joint_attention_dim }
        }
        (Family::Sdxl, _) => TextRules::Sdxl {
            zeros_for_no_negative: index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true),
        },
        _ => TextRules::Sd,
    }
}
