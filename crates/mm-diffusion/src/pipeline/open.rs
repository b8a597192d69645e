//! Opening of a diffusers folder.

use super::Denoiser;
use super::parts::PartSource;
use crate::lora::{Component, ComponentModules, LoraFile, LoraReport};
use crate::objective::FlowPrediction;
use crate::safety_checker::{self, SafetyChecker};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::text::{ClipTextEncoder, T5TextEncoder, TextEncoders, TextRules, rename_text_weights};
use crate::textual_inversion::TextualInversion;
use crate::vae::Vae;
use crate::{Error, Result};
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::nn::matrices_in;
use mm_core::{OpenOptions, hub};
use serde_json::Value;
use std::path::PathBuf;
use tch::Device;
use tch::nn::VarStore;

/// The list of a pipeline's parts.
pub(crate) const INDEX_FILE: &str = "model_index.json";

/// The stem of the weights of diffusers' models.
pub(crate) const WEIGHTS: &str = "diffusion_pytorch_model";

/// The class of pipelines in pixels, which are trained here: a transformer without an autoencoder.
pub(crate) const PIXEL_CLASS: &str = "PixelDiffusionPipeline";

/// The same in the latents of an autoencoder.
pub(crate) const LATENT_CLASS: &str = "LatentDiffusionPipeline";

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
    /// A transformer that is trained here with its text encoder: in pixels, or in the latents of an
    /// autoencoder.
    Pixel,
}

/// The classes that are read, each with its family.
const CLASSES: [(&str, Family); 13] = [
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
    (LATENT_CLASS, Family::Pixel),
];

impl Family {
    pub(super) fn of(class: &str) -> Result<Self, String> {
        CLASSES.iter().find(|(name, _)| *name == class).map(|&(_, family)| family).ok_or_else(|| {
            let known: Vec<&str> = CLASSES.iter().map(|&(name, _)| name).collect();
            format!("_class_name {class} is not offered: {}", known.join(", "))
        })
    }

    /// The folder of the denoiser, and its name in LoRA files.
    pub(crate) fn denoiser(self) -> (&'static str, Component) {
        match self {
            Self::Sd3 | Self::Pixel => ("transformer", Component::Transformer),
            Self::Sd | Self::Pix2Pix | Self::Sdxl => ("unet", Component::Unet),
        }
    }

    pub(super) fn has_two_clips(self) -> bool {
        matches!(self, Self::Sdxl | Self::Sd3)
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
    /// Files of textual inversions, each with the token that it is in prompts, where that is not the file's
    /// own.
    pub embeddings: Vec<(PathBuf, Option<String>)>,
    /// Whether the folder's safety checker is left out.
    pub skip_safety_checker: bool,
}

/// A text-to-image model with all its parts, for inference.
#[derive(Debug)]
pub struct DiffusionPipeline {
    pub(crate) family: Family,
    /// What a transformer predicts.
    pub(crate) prediction: FlowPrediction,
    pub(crate) denoiser: Denoiser,
    pub(crate) vae: Option<Vae>,
    pub(crate) text: TextEncoders,
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) device: Device,
    pub(crate) loras: Vec<(PathBuf, f64, LoraReport)>,
    /// The files of textual inversions with their tokens.
    pub(crate) embeddings: Vec<(PathBuf, String)>,
    /// Whether the folder has a safety checker, applied or not.
    pub(crate) has_safety_checker: bool,
    /// The safety checker that is applied.
    pub(crate) safety_checker: Option<SafetyChecker>,
}

impl DiffusionPipeline {
    /// The device of the models.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The side in pixels of the images that the model is made for.
    pub fn image_side(&self) -> u32 {
        (self.denoiser.sample_size() * self.reduction()) as u32
    }

    /// Opens the diffusers folder `model`, a path or a hub name, a checkpoint of a training run, or a
    /// checkpoint of SD 1 or XL in one file, which is read as [`SingleFile`](crate::single_file::SingleFile)
    /// says.
    ///
    /// # Errors
    /// A part is missing or damaged, the class is not offered, a LoRA or a textual inversion does not fit, or
    /// the device is not available.
    pub fn open(model: &str, options: &PipelineOptions) -> Result<Self> {
        // The store goes before the weights are laid out again, so that none is in memory twice.
        let mut pipeline = Self::load(model, options, &VarStore::new(options.open.resolve_device()?))?;
        let precision = options.open.precision;
        pipeline.denoiser.pack(precision);
        pipeline.text.pack(precision);
        pipeline.vae.iter_mut().for_each(|vae| vae.pack(precision));
        if pipeline.has_safety_checker && !options.skip_safety_checker {
            let folder = hub::resolve(model)?;
            let checker = SafetyChecker::open(&folder, pipeline.device).map_err(|error| {
                let problem = format!("{error} (--no-safety-checker opens the model without it)");
                Error::folder(&folder.join(safety_checker::PART), problem)
            })?;
            pipeline.safety_checker = Some(checker);
        }
        Ok(pipeline)
    }

    /// As [`DiffusionPipeline::open`], as it is stored and with its variables in `vs`, each below the name of
    /// its part. For bf16 the matrices of the denoiser are in bf16.
    pub(crate) fn load(model: &str, options: &PipelineOptions, vs: &VarStore) -> Result<Self> {
        let folder = PartSource::open(model)?;
        let index = &folder.index;
        let (part, component) = folder.family.denoiser();
        let two_clips = folder.family.has_two_clips();
        let mut scheduler = folder.scheduler()?;
        if let Some(kind) = options.scheduler {
            scheduler = scheduler.with_kind(kind)?;
        }
        if folder.family.overrides_scheduler() {
            override_settings(&mut scheduler)?;
        }

        let mut weights = folder.weights(part, WEIGHTS)?;
        let mut texts = vec![("text_encoder", "tokenizer", Component::TextEncoder)];
        texts.extend(two_clips.then_some(("text_encoder_2", "tokenizer_2", Component::TextEncoder2)));
        let text_weights = |part: &str| -> Result<Weights> {
            let mut weights = folder.weights(part, "model")?;
            rename_text_weights(&mut weights);
            Ok(weights)
        };
        let mut text_weights: Vec<Weights> =
            texts.iter().map(|(part, ..)| text_weights(part)).collect::<Result<_>>()?;
        let mut modules = ComponentModules::new().with(component, &weights);
        for ((_, _, component), weights) in texts.iter().zip(&text_weights) {
            modules = modules.with(*component, weights);
        }
        let mut loras = Vec::new();
        for (path, scale) in &options.loras {
            let lora = LoraFile::open(path, &modules)?;
            lora.apply(component, &mut weights, *scale)?;
            for ((_, _, component), weights) in texts.iter().zip(&mut text_weights) {
                lora.apply(*component, weights, *scale)?;
            }
            loras.push((lora.path().to_owned(), *scale, lora.report()));
        }

        // The largest part by far: in f32 it would take twice the memory that it needs in bf16.
        let denoiser = matrices_in(options.open.precision.kind(), || folder.denoiser(&mut weights, vs))?;
        let mut encoders = texts.iter().zip(&mut text_weights).map(|((part, tokenizer, _), weights)| {
            let tokenizer = folder.tokenizer(tokenizer)?;
            let config = folder.config(part)?;
            ClipTextEncoder::load(vs, part, &config, tokenizer, weights, &folder.layout(TensorLayout::HF))
        });
        let missing = || Error::folder(&folder.path, "has no text_encoder/: copy the folder again");
        let first = encoders.next().ok_or_else(missing)??;
        let second = encoders.next().transpose()?;
        let t5 = folder.has("text_encoder_3").then(|| T5TextEncoder::open(&folder.path, vs)).transpose()?;
        let vae = folder.has_vae().then(|| folder.vae(vs)).transpose()?;
        let mut text = TextEncoders::new(rules(folder.family, index, &denoiser), first, second, t5);
        let mut embeddings = Vec::new();
        for (path, token) in &options.embeddings {
            let inversion = TextualInversion::open(path, token.as_deref())?;
            let (tokens, vectors, vectors_2) =
                (inversion.tokens(), inversion.vectors(), inversion.vectors_2());
            text = text.with_new_tokens(tokens, vectors, vectors_2).map_err(|error| {
                let problem = error.to_string();
                Error::Lora { path: path.clone(), problem }
            })?;
            embeddings.push((path.clone(), inversion.token().to_owned()));
        }
        let prediction = match index.get("prediction") {
            Some(given) => serde_json::from_value(given.clone()).map_err(|error| {
                Error::folder(&folder.path.join(INDEX_FILE), format!("prediction: {error}"))
            })?,
            None => FlowPrediction::default(),
        };
        let pipeline = Self {
            family: folder.family,
            prediction,
            denoiser,
            vae,
            text,
            scheduler,
            device: vs.device(),
            loras,
            embeddings,
            has_safety_checker: folder.has(safety_checker::PART),
            safety_checker: None,
        };
        pipeline.check()?;
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

    /// The textual inversions: file, and token in prompts.
    pub fn embeddings(&self) -> &[(PathBuf, String)] {
        &self.embeddings
    }

    /// Whether the folder has a safety checker, applied or left out.
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
    pub(crate) fn check(&self) -> Result<()> {
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
