//! The loss of a denoiser on a batch.

use super::cache::CachedText;
use super::config::{InputConfig, ObjectiveConfig};
use super::item::{DiffusionBatch, DiffusionItem, Latents, Picture};
use crate::noise::ImageNoise;
use crate::objective::mean_per_image;
use crate::pipeline::{DiffusionPipeline, stack_pixel_values};
use crate::schedulers::NoiseSchedule;
use crate::text::{TextConditions, TextRules};
use mm_core::upload;
use mm_text::Padding;
use tch::{Device, Kind, Tensor};

/// A pipeline with what its denoiser learns.
#[derive(Clone, Copy)]
pub(super) struct Denoising<'a> {
    pub pipeline: &'a DiffusionPipeline,
    pub objective: &'a ObjectiveConfig,
    pub input: &'a InputConfig,
    /// Of the scheduler, where the objective is of a diffusion process.
    pub schedule: Option<&'a NoiseSchedule>,
}

impl Denoising<'_> {
    /// What the denoiser reads of the batch's prompts.
    fn text(&self, batch: &DiffusionBatch) -> crate::Result<TextConditions> {
        if self.pipeline.text.rules == TextRules::Masked {
            return Ok(TextConditions::masked(self.pipeline.text.first.states(&batch.tokens)));
        }
        if let Some(text) = &batch.text {
            return Ok(text.shallow_clone());
        }
        // Frozen encoders read the text itself: two of them have two tokenizers. The vectors of a new token
        // train through them.
        let prompts: Vec<&str> = batch.prompts.iter().map(String::as_str).collect();
        self.pipeline.text.encode(&prompts, 0)
    }

    /// The denoiser's output for noisy images at `timestep` `[B]`.
    fn predict(&self, noisy: &Tensor, timestep: &Tensor, batch: &DiffusionBatch) -> crate::Result<Tensor> {
        let text = self.text(batch)?;
        let input = match &batch.extra {
            Some(extra) => Tensor::cat(&[noisy, extra], 1),
            None => noisy.shallow_clone(),
        };
        self.pipeline.denoiser.predict(&input, timestep, &text, &batch.sizes)
    }

    /// The loss of each image, `[B]`.
    pub(super) fn losses(&self, batch: &DiffusionBatch) -> crate::Result<Tensor> {
        let DiffusionBatch { clean, noise, level, .. } = batch;
        let errors = match (self.objective, self.schedule) {
            (ObjectiveConfig::Ddpm(ddpm), Some(schedule)) => {
                let noisy = schedule.add_noise(clean, noise, level);
                let output = self.predict(&noisy, &level.to_kind(Kind::Float), batch)?;
                let prediction = self.pipeline.scheduler.prediction_type();
                ddpm.errors(schedule, prediction, &output, clean, noise, level)
            }
            (ObjectiveConfig::Flow(flow), _) => {
                let noisy = flow.noisy(clean, noise, level);
                let output = self.predict(&noisy, &(level * 1000.0), batch)?;
                flow.errors(&output, &noisy, clean, noise, level)
            }
            (ObjectiveConfig::Ddpm(_), None) => {
                return Err(crate::Error::Model("the scheduler has no noise schedule".to_owned()));
            }
        };
        Ok(mean_per_image(&match &batch.weights {
            Some(weights) => errors * weights,
            None => errors,
        }))
    }

    pub(super) fn batch(&self, items: Vec<DiffusionItem>) -> crate::Result<DiffusionBatch> {
        let cut_prompts = items.iter().filter(|item| item.is_cut).count() as f64 / items.len() as f64;
        let device = self.pipeline.device;
        let encoded = self.encode(&items)?;
        let shape = encoded.shape();
        let mut noises = ImageNoise::new(&items.iter().map(|item| item.noise_seed).collect::<Vec<_>>());
        let mut draw = || -> crate::Result<Tensor> { Ok(upload(&noises.draw(&shape)?, device)) };
        let mut noise = draw()?;
        let clean = match (encoded, &self.pipeline.vae) {
            (Encoded::Latents { mean, std }, Some(vae)) => vae.scale_latents(&(mean + std * draw()?)),
            (Encoded::Latents { mean, .. }, None) => mean,
            (Encoded::Pixels(pixel_values), _) => pixel_values,
        };
        if let ObjectiveConfig::Ddpm(ddpm) = self.objective
            && ddpm.noise_offset > 0.0
        {
            let channels = noises.draw(&[shape[0], 1, 1])?;
            noise = ddpm.offset_noise(&noise, &upload(&channels, device));
        }
        let level = match (self.objective, self.schedule) {
            (ObjectiveConfig::Flow(flow), _) => {
                let sigma: Vec<f32> = items.iter().map(|item| flow.sigma(item.level) as f32).collect();
                Tensor::from_slice(&sigma)
            }
            (ObjectiveConfig::Ddpm(_), schedule) => {
                let steps = schedule.map_or(1, NoiseSchedule::len);
                let step = |item: &DiffusionItem| item.level.timestep(steps) as i64;
                Tensor::from_slice(&items.iter().map(step).collect::<Vec<_>>())
            }
        };
        let extra = self.extra(&items, &clean)?;
        let sizes: Vec<f32> = items.iter().flat_map(|item| item.pictures.sizes).collect();
        let sizes = Tensor::from_slice(&sizes).view([-1, 6]).to_device(device);
        let without_mask =
            items.iter().filter(|item| item.pictures.weights.is_none()).count() as f64 / items.len() as f64;
        let weights = self.input.masked_loss.then(|| self.weights(&items, &clean));
        let (mut rows, mut prompts, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            rows.push(item.token_ids);
            prompts.push(item.prompt);
            texts.extend(item.text);
        }
        let tokens = self.pipeline.text.first.tokenizer.collate(&rows, Padding::Longest).to_device(device);
        Ok(DiffusionBatch {
            clean,
            noise,
            level: level.to_device(device),
            extra,
            tokens,
            text: (texts.len() == prompts.len()).then(|| joined(&texts, device)),
            prompts,
            cut_prompts,
            weights,
            sizes,
            without_mask,
        })
    }

    /// How much each position of `clean` `[B, C, h, w]` counts by the masks of `items`, `[B, 1, h, w]`.
    fn weights(&self, items: &[DiffusionItem], clean: &Tensor) -> Tensor {
        let (rows, columns) = (clean.size()[2], clean.size()[3]);
        let weights = |item: &DiffusionItem| match &item.pictures.weights {
            Some(weights) => Tensor::from_slice(weights).view([1, rows, columns]),
            None => Tensor::ones([1, rows, columns], (Kind::Float, Device::Cpu)),
        };
        let weights = Tensor::stack(&items.iter().map(weights).collect::<Vec<_>>(), 0);
        upload(&weights, clean.device()).clamp_min(self.input.unmasked_weight)
    }

    /// What the denoiser reads beside noisy images: the edited image, or zeros where there is none.
    fn extra(&self, items: &[DiffusionItem], clean: &Tensor) -> crate::Result<Option<Tensor>> {
        let reads = self.pipeline.denoiser.in_channels();
        if reads == self.pipeline.latent_channels() {
            return Ok(None);
        }
        if reads != 2 * self.pipeline.latent_channels() {
            let problem = "a model for inpainting is not trained here: it needs masks".to_owned();
            return Err(crate::Error::Model(problem));
        }
        let source = |item: &DiffusionItem| match &item.pictures.source {
            None => Tensor::zeros(
                [1, clean.size()[1], clean.size()[2], clean.size()[3]],
                (Kind::Float, clean.device()),
            ),
            Some(Picture::Latents(mean)) => upload(mean, clean.device()),
            Some(Picture::Pixels(image)) => {
                let pixels = upload(&stack_pixel_values([image]), clean.device());
                match &self.pipeline.vae {
                    None => pixels,
                    // Not scaled, as InstructPix2Pix was trained.
                    Some(vae) => tch::no_grad(|| vae.encode(&pixels).mean),
                }
            }
        };
        Ok(Some(Tensor::cat(&items.iter().map(source).collect::<Vec<_>>(), 0)))
    }

    /// The images of `items`, which are of one size: pixels, or latents where the pipeline has them.
    fn encode(&self, items: &[DiffusionItem]) -> crate::Result<Encoded> {
        let device = self.pipeline.device;
        let (mut pixels, mut means, mut stds) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match &item.pictures.image {
                Picture::Pixels(image) => pixels.push(image),
                Picture::Latents(Latents { mean, std }) => {
                    means.push(mean.shallow_clone());
                    stds.push(std.shallow_clone());
                }
            }
        }
        let stack =
            |parts: &[Tensor]| -> crate::Result<Tensor> { Ok(upload(&Tensor::f_cat(parts, 0)?, device)) };
        if pixels.is_empty() {
            return Ok(Encoded::Latents { mean: stack(&means)?, std: stack(&stds)? });
        }
        let pixel_values = upload(&stack_pixel_values(pixels), device);
        let Some(vae) = &self.pipeline.vae else { return Ok(Encoded::Pixels(pixel_values)) };
        let encoded = tch::no_grad(|| vae.encode(&pixel_values));
        Ok(Encoded::Latents { std: encoded.std(), mean: encoded.mean })
    }
}

/// Images of a batch.
enum Encoded {
    /// `[B, 3, H, W]`.
    Pixels(Tensor),
    /// Of latents, `[B, C, h, w]`.
    Latents { mean: Tensor, std: Tensor },
}

impl Encoded {
    /// The shape of one image or its latents.
    fn shape(&self) -> Vec<i64> {
        let (Self::Pixels(all) | Self::Latents { mean: all, .. }) = self;
        all.size()[1..].to_vec()
    }
}

/// `texts` as one batch.
fn joined(texts: &[CachedText], device: Device) -> TextConditions {
    let states: Vec<&Tensor> = texts.iter().map(|text| &text.states).collect();
    let pooled: Option<Vec<&Tensor>> = texts.iter().map(|text| text.pooled.as_ref()).collect();
    let join = |parts: &[&Tensor]| upload(&Tensor::cat(parts, 0), device);
    TextConditions { states: join(&states), pooled: pooled.map(|pooled| join(&pooled)), mask: None }
}
