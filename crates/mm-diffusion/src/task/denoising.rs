//! The loss of a denoiser on a batch.

use super::config::ObjectiveConfig;
use super::item::{DiffusionBatch, DiffusionItem};
use crate::noise::ImageNoise;
use crate::pipeline::{Denoiser, DiffusionPipeline, to_pixel_values};
use crate::schedulers::NoiseSchedule;
use crate::sd3::Sd3Condition;
use crate::text::{TextConditions, TextRules};
use crate::unet::UNetInputs;
use mm_core::upload;
use mm_image::RgbImage;
use mm_text::Padding;
use tch::{Kind, Tensor};

/// A pipeline with what its denoiser learns.
#[derive(Clone, Copy)]
pub(super) struct Denoising<'a> {
    pub pipeline: &'a DiffusionPipeline,
    pub objective: &'a ObjectiveConfig,
    /// Of the scheduler, where the objective is of a diffusion process.
    pub schedule: Option<&'a NoiseSchedule>,
}

impl Denoising<'_> {
    /// What the denoiser reads of the batch's prompts.
    fn text(&self, batch: &DiffusionBatch) -> crate::Result<TextConditions> {
        if self.pipeline.text.rules == TextRules::Masked {
            return Ok(TextConditions::masked(self.pipeline.text.first.states(&batch.tokens)));
        }
        // Frozen encoders read the text itself: two of them have two tokenizers.
        let prompts: Vec<&str> = batch.prompts.iter().map(String::as_str).collect();
        tch::no_grad(|| self.pipeline.text.encode(&prompts, 0))
    }

    /// The denoiser's output for noisy images at `timestep` `[B]`.
    fn predict(&self, noisy: &Tensor, timestep: &Tensor, batch: &DiffusionBatch) -> crate::Result<Tensor> {
        let text = self.text(batch)?;
        let input = match &batch.extra {
            Some(extra) => Tensor::cat(&[noisy, extra], 1),
            None => noisy.shallow_clone(),
        };
        match &self.pipeline.denoiser {
            Denoiser::Transformer(transformer) => {
                let missing = || crate::Error::Model("a transformer reads one vector a text".to_owned());
                let condition = Sd3Condition {
                    encoder_hidden_states: &text.states,
                    pooled_projections: text.pooled.as_ref().ok_or_else(missing)?,
                    attention_mask: text.mask.as_ref(),
                };
                transformer.forward(&input, timestep, &condition)
            }
            Denoiser::UNet(unet) => {
                let side = |dim: usize| (noisy.size()[dim] * self.pipeline.reduction()) as f64;
                let sizes = [side(2), side(3), 0.0, 0.0, side(2), side(3)];
                let sizes = Tensor::from_slice(&sizes).to_kind(Kind::Float).to_device(noisy.device());
                let sizes = sizes.expand([noisy.size()[0], 6], false);
                let text_states = unet.project_text(&text.states);
                unet.forward(UNetInputs {
                    sample: &input,
                    timestep,
                    text: &text_states,
                    added: text.pooled.as_ref().map(|pooled| (pooled, &sizes)),
                    guidance: None,
                })
            }
        }
    }

    /// The loss of each image, `[B]`.
    pub(super) fn losses(&self, batch: &DiffusionBatch) -> crate::Result<Tensor> {
        let DiffusionBatch { clean, noise, level, .. } = batch;
        match (self.objective, self.schedule) {
            (ObjectiveConfig::Ddpm(ddpm), Some(schedule)) => {
                let noisy = schedule.add_noise(clean, noise, level);
                let output = self.predict(&noisy, &level.to_kind(Kind::Float), batch)?;
                let prediction = self.pipeline.scheduler.prediction_type();
                Ok(ddpm.loss(schedule, prediction, &output, clean, noise, level))
            }
            (ObjectiveConfig::Flow(flow), _) => {
                let noisy = flow.noisy(clean, noise, level);
                let output = self.predict(&noisy, &(level * 1000.0), batch)?;
                Ok(flow.loss(&output, &noisy, clean, noise, level))
            }
            (ObjectiveConfig::Ddpm(_), None) => {
                Err(crate::Error::Model("the scheduler has no noise schedule".to_owned()))
            }
        }
    }

    pub(super) fn batch(&self, items: Vec<DiffusionItem>) -> crate::Result<DiffusionBatch> {
        let cut_prompts = items.iter().filter(|item| item.is_cut).count() as f64 / items.len() as f64;
        let device = self.pipeline.device;
        let pixels = |image: &RgbImage| to_pixel_values(image, image.width().into(), image.height().into());
        let stack = |images: Vec<Tensor>| upload(&Tensor::cat(&images, 0), device);
        let pixel_values = stack(items.iter().map(|item| pixels(&item.image)).collect());
        let shape = [
            self.pipeline.latent_channels(),
            pixel_values.size()[2] / self.pipeline.reduction(),
            pixel_values.size()[3] / self.pipeline.reduction(),
        ];
        let mut noises = ImageNoise::new(&items.iter().map(|item| item.noise_seed).collect::<Vec<_>>());
        let mut draw = || -> crate::Result<Tensor> { Ok(upload(&noises.draw(&shape)?, device)) };
        let mut noise = draw()?;
        let clean = match &self.pipeline.vae {
            None => pixel_values,
            Some(vae) => {
                let drawn = draw()?;
                tch::no_grad(|| vae.scale_latents(&vae.encode(&pixel_values).sample(&drawn)))
            }
        };
        if let ObjectiveConfig::Ddpm(ddpm) = self.objective
            && ddpm.noise_offset > 0.0
        {
            let channels = noises.draw(&[shape[0], 1, 1])?;
            noise += upload(&channels, device) * ddpm.noise_offset;
        }
        let level = match (self.objective, self.schedule) {
            (ObjectiveConfig::Flow(flow), _) => {
                let sigma: Vec<f32> = items.iter().map(|item| flow.sigma(item.level) as f32).collect();
                Tensor::from_slice(&sigma)
            }
            (ObjectiveConfig::Ddpm(_), schedule) => {
                let steps = schedule.map_or(1, NoiseSchedule::len);
                let step =
                    |item: &DiffusionItem| ((item.level.uniform * steps as f64) as i64).min(steps as i64 - 1);
                Tensor::from_slice(&items.iter().map(step).collect::<Vec<_>>())
            }
        };
        let extra = self.extra(&items, &clean, &pixels)?;
        let (mut rows, mut prompts) = (Vec::new(), Vec::new());
        for item in items {
            rows.push(item.token_ids);
            prompts.push(item.prompt);
        }
        let tokens = self.pipeline.text.first.tokenizer.collate(&rows, Padding::Longest).to_device(device);
        Ok(DiffusionBatch {
            clean,
            noise,
            level: level.to_device(device),
            extra,
            tokens,
            prompts,
            cut_prompts,
        })
    }

    /// What the denoiser reads beside noisy images: the edited image, or zeros where there is none.
    fn extra(
        &self,
        items: &[DiffusionItem],
        clean: &Tensor,
        pixels: &dyn Fn(&RgbImage) -> Tensor,
    ) -> crate::Result<Option<Tensor>> {
        let reads = self.pipeline.denoiser.in_channels();
        if reads == self.pipeline.latent_channels() {
            return Ok(None);
        }
        if reads != 2 * self.pipeline.latent_channels() {
            let problem = "a model for inpainting is not trained here: it needs masks".to_owned();
            return Err(crate::Error::Model(problem));
        }
        let sources: Vec<Tensor> = items
            .iter()
            .map(|item| match &item.source {
                None => Tensor::zeros(
                    [1, clean.size()[1], clean.size()[2], clean.size()[3]],
                    (Kind::Float, clean.device()),
                ),
                Some(image) => {
                    let pixels = upload(&pixels(image), clean.device());
                    match &self.pipeline.vae {
                        None => pixels,
                        // Not scaled, as InstructPix2Pix was trained.
                        Some(vae) => tch::no_grad(|| vae.encode(&pixels).mean),
                    }
                }
            })
            .collect();
        Ok(Some(Tensor::cat(&sources, 0)))
    }
}
