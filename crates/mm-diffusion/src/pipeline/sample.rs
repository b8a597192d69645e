//! The loop from noise to images.

use super::attention::TokenMaps;
use super::edit::{Edit, EditKind};
use super::images::{stack_pixel_values, to_mask, to_pictures, to_pixel_values};
use super::open::{DiffusionPipeline, Family};
use super::options::{GenerateOptions, GeneratedImage, ImageRequest, Settings, legal_side};
use crate::noise::ImageNoise;
use crate::schedulers::{Scheduler, SchedulerOptions};
use crate::{Error, Result};
use mm_core::upload;
use mm_image::RgbImage;
use mm_sys::inference_mode;
use tch::Tensor;

/// Pixels that are decoded at once: small images together, large ones one after the other.
const DECODED_AT_ONCE: i64 = 512 * 512;

/// A step that is done.
pub struct StepProgress<'a> {
    /// Calls of the model so far.
    pub call: usize,
    /// All calls.
    pub calls: usize,
    /// Latents, or pixels of a model without an autoencoder, `[N, C, h, w]`.
    pub sample: &'a Tensor,
    /// The estimate of the noise-free sample before this step.
    pub original: &'a dyn Fn() -> Tensor,
}

/// What a run works on, beside the prompts.
struct Start {
    /// The noisy sample, `[N, C, h, w]`.
    sample: Tensor,
    /// Channels that the model reads beside the sample, for each branch of guidance.
    extra: Vec<Option<Tensor>>,
    /// Where a part of an image is kept by a model that does not read it: the part's inverse mask, the
    /// image's latents and the noise that they get.
    kept: Option<(Tensor, Tensor, Tensor)>,
}

impl DiffusionPipeline {
    /// The settings that images of `options`, and of an edit, are made with.
    ///
    /// # Errors
    /// A setting is out of its range, or the model is not made for the edit.
    pub fn settings(&self, options: &GenerateOptions, edit: Option<&Edit>) -> Result<Settings> {
        options.validate()?;
        edit.map_or(Ok(()), Edit::validate)?;
        self.check_edit(edit)?;
        let (default_steps, default_guidance) = self.family.defaults();
        let steps = options.steps.unwrap_or(default_steps);
        let (steps, skipped) = edit.map_or(Ok((steps, 0)), |edit| edit.steps(steps))?;
        let unit = self.reduction() * self.denoiser.unit();
        let own = self.denoiser.sample_size() * self.reduction();
        let given = edit.map(|edit| {
            let (width, height) = edit.image.dimensions();
            let down = |side: u32| (i64::from(side) / unit).max(1) * unit;
            (down(width), down(height))
        });
        let (width, height) = given.unwrap_or((own, own));
        let most = self.denoiser.most_size().map(|most| most * self.reduction());
        let width = legal_side("width", options.width.unwrap_or(width), unit, most)?;
        let height = legal_side("height", options.height.unwrap_or(height), unit, most)?;
        let scheduler = self.build_scheduler(steps, width, height, options)?;
        Ok(Settings {
            width,
            height,
            steps,
            calls: scheduler.timesteps().len() - skipped * scheduler.order(),
            guidance_scale: options.guidance_scale.unwrap_or(default_guidance),
            image_guidance_scale: edit
                .is_some_and(|edit| matches!(edit.kind, EditKind::Instruct))
                .then_some(options.image_guidance_scale),
            guidance_rescale: options.guidance_rescale,
            guidance_interval: options.guidance_interval,
            strength: edit.and_then(Edit::strength),
            clip_skip: options.clip_skip,
            eta: options.eta,
            scheduler: self.scheduler.effective(),
        })
    }

    fn check_edit(&self, edit: Option<&Edit>) -> Result<()> {
        let (reads, latents) = (self.denoiser.in_channels(), self.latent_channels());
        let refuse = |problem: &str| Err(Error::Request(problem.to_owned()));
        let instructs = reads == 2 * latents;
        let inpaints = reads == 2 * latents + 1;
        match edit.map(|edit| &edit.kind) {
            Some(EditKind::Instruct) if !instructs => {
                refuse("the model is not made for instructions: edit with a strength, or with a mask")
            }
            Some(EditKind::Inpaint { .. }) if instructs => {
                refuse("the model edits by instructions alone: no mask")
            }
            Some(EditKind::ImageToImage { .. }) if instructs || inpaints => refuse(
                "the model reads an image of its own: give an instruction or a mask, and no strength alone",
            ),
            None if inpaints => refuse("the model paints parts of images: give it an image and a mask"),
            // A model in pixels also generates: its training leaves the image out at times.
            None if instructs && self.family == Family::Pix2Pix => {
                refuse("the model edits images by instructions: give it an image")
            }
            _ => Ok(()),
        }
    }

    fn build_scheduler(
        &self,
        steps: usize,
        width: i64,
        height: i64,
        options: &GenerateOptions,
    ) -> Result<Box<dyn Scheduler>> {
        let unit = self.reduction() * self.denoiser.unit();
        let mu = self.scheduler.dynamic_shift(((width / unit) * (height / unit)) as usize);
        self.scheduler.build(steps, &SchedulerOptions { eta: options.eta, mu, ..SchedulerOptions::default() })
    }

    /// The images of `requests`, each of its own seed whatever the batch, with the pipeline's safety checker
    /// applied.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::settings`]; `on_step` fails; or a number is not finite.
    pub fn generate(
        &self,
        requests: &[ImageRequest],
        edit: Option<&Edit>,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(&StepProgress) -> Result<()>,
    ) -> Result<Vec<GeneratedImage>> {
        self.pictures(&self.sample(requests, edit, options, on_step)?, options)
    }

    /// The pictures of a sample `[N, C, h, w]`, with the safety checker applied.
    ///
    /// # Errors
    /// The safety checker fails.
    pub fn pictures(&self, sample: &Tensor, options: &GenerateOptions) -> Result<Vec<GeneratedImage>> {
        let per_image = sample.size()[2..].iter().product::<i64>() * self.reduction().pow(2);
        let at_once = (DECODED_AT_ONCE / per_image.max(1)).max(1);
        let mut pictures = Vec::with_capacity(sample.size()[0] as usize);
        for part in sample.split(at_once, 0) {
            pictures.extend(to_pictures(&self.decode(&part, options.tiled_decoding)));
        }
        let Some(checker) = &self.safety_checker else {
            let unchecked = |picture| GeneratedImage { picture, is_flagged: None };
            return Ok(pictures.into_iter().map(unchecked).collect());
        };
        let verdicts = checker.check(&pictures)?;
        let checked = pictures.into_iter().zip(verdicts).map(|(picture, verdict)| {
            let is_flagged = verdict.is_flagged();
            let (width, height) = picture.dimensions();
            let picture = if is_flagged { RgbImage::new(width, height) } else { picture };
            GeneratedImage { picture, is_flagged: Some(is_flagged) }
        });
        Ok(checked.collect())
    }

    /// Pixels `[N, 3, H, W]`, about -1 to 1, of a sample `[N, C, h, w]`.
    pub fn decode(&self, sample: &Tensor, tiled: bool) -> Tensor {
        inference_mode(|| match &self.vae {
            Some(vae) if tiled => vae.decode_tiled(&vae.unscale_latents(sample)),
            _ => self.decode_with_gradient(sample),
        })
    }

    /// The same, with gradients to the sample.
    pub fn decode_with_gradient(&self, sample: &Tensor) -> Tensor {
        match &self.vae {
            None => sample.shallow_clone(),
            Some(vae) => vae.decode(&vae.unscale_latents(sample)),
        }
    }

    /// The samples of `pictures`, all of one size, `[N, C, h, w]`: pixels, or latents, each drawn with the
    /// next of `noise`, of which there may be fewer than pictures: it is then used again.
    ///
    /// # Errors
    /// The memory is not there.
    pub fn encode_pictures(&self, pictures: &[&RgbImage], noise: &mut ImageNoise) -> Result<Tensor> {
        let pixels = upload(&stack_pixel_values(pictures.iter().copied()), self.device);
        let Some(vae) = &self.vae else { return Ok(pixels) };
        tch::no_grad(|| {
            let encoded = vae.encode(&pixels);
            let drawn = upload(&noise.draw(&encoded.mean.size()[1..])?, self.device);
            let times = encoded.mean.size()[0] / drawn.size()[0];
            Ok(vae.scale_latents(&encoded.sample(&drawn.repeat([times, 1, 1, 1]))))
        })
    }

    /// The sample `[N, C, h, w]` after the last step: latents as the denoiser has them, or pixels of a model
    /// without an autoencoder.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::generate`].
    pub fn sample(
        &self,
        requests: &[ImageRequest],
        edit: Option<&Edit>,
        options: &GenerateOptions,
        on_step: &mut dyn FnMut(&StepProgress) -> Result<()>,
    ) -> Result<Tensor> {
        if requests.is_empty() {
            return Err(Error::Request("there is no prompt".to_owned()));
        }
        let settings = self.settings(options, edit)?;
        inference_mode(|| self.run(requests, (edit, &[]), options, &settings, &mut None, on_step))
    }

    /// As [`DiffusionPipeline::sample`], for instructions that each edit the image of `images` at their
    /// place.
    pub(crate) fn sample_edits(
        &self,
        requests: &[ImageRequest],
        images: &[RgbImage],
        options: &GenerateOptions,
    ) -> Result<Tensor> {
        let first = images.first().filter(|_| images.len() == requests.len());
        let missing = || Error::Request("an instruction has no image".to_owned());
        let edit = Edit { image: first.ok_or_else(missing)?.clone(), kind: EditKind::Instruct };
        let settings = self.settings(options, Some(&edit))?;
        inference_mode(|| {
            self.run(requests, (Some(&edit), images), options, &settings, &mut None, &mut |_| Ok(()))
        })
    }

    /// The images beside an edit are those of instructions, one a request; none: all edit the same. The
    /// attention to the first prompt is added to `maps`.
    pub(super) fn run(
        &self,
        requests: &[ImageRequest],
        edit: (Option<&Edit>, &[RgbImage]),
        options: &GenerateOptions,
        settings: &Settings,
        maps: &mut Option<TokenMaps>,
        on_step: &mut dyn FnMut(&StepProgress) -> Result<()>,
    ) -> Result<Tensor> {
        let mut scheduler = self.build_scheduler(settings.steps, settings.width, settings.height, options)?;
        let timesteps = scheduler.timesteps().to_vec();
        let first = timesteps.len() - settings.calls;
        scheduler.set_begin_index(first)?;
        let mut noise = ImageNoise::new(&requests.iter().map(|request| request.seed).collect::<Vec<_>>());
        let Start { mut sample, extra, kept } =
            self.start(edit, settings, scheduler.as_ref(), first, requests.len(), &mut noise)?;
        let guidance = self.guidance(requests, options, settings, &extra)?;
        let shape = sample.size()[1..].to_vec();
        for call in first..timesteps.len() {
            let share = (call - first) as f64 / settings.calls as f64;
            let input = scheduler.scale_model_input(&sample, call);
            let output = self.predict(&guidance, (&input, timesteps[call], share), settings, maps)?;
            let output = self.prediction.to_velocity(output, &sample, timesteps[call] / 1000.0);
            let before = sample.shallow_clone();
            let mut failed = None;
            sample = scheduler.step(&output, call, &sample, &mut || {
                let drawn = noise.draw(&shape).map(|noise| noise.to_device(self.device));
                drawn.unwrap_or_else(|error| {
                    failed = Some(error);
                    before.zeros_like()
                })
            })?;
            failed.map_or(Ok(()), Err)?;
            if let Some((keeps, image, noise)) = &kept {
                let known = match call + 1 < timesteps.len() {
                    true => scheduler.add_noise(image, noise, call + 1),
                    false => image.shallow_clone(),
                };
                sample = known * keeps + &sample * (1.0 - keeps);
            }
            let original = || scheduler.pred_original_sample(&output, call, &before);
            let (call, calls) = (call + 1 - first, settings.calls);
            on_step(&StepProgress { call, calls, sample: &sample, original: &original })?;
        }
        check_finite(&sample, requests)?;
        Ok(sample)
    }

    /// The sample that a run starts from. The order of the draws is diffusers'.
    fn start(
        &self,
        (edit, images): (Option<&Edit>, &[RgbImage]),
        settings: &Settings,
        scheduler: &dyn Scheduler,
        first: usize,
        count: usize,
        noise: &mut ImageNoise,
    ) -> Result<Start> {
        let (width, height) = (settings.width, settings.height);
        let (rows, columns) = (height / self.reduction(), width / self.reduction());
        let shape = [self.latent_channels(), rows, columns];
        let mut draw = || -> Result<Tensor> { Ok(noise.draw(&shape)?.to_device(self.device)) };
        let from_noise = |noise: &Tensor| noise * scheduler.init_noise_sigma();
        let pixels = edit.map(|edit| to_pixel_values(&edit.image, width, height).to_device(self.device));
        let all = |x: Tensor| x.repeat([count as i64, 1, 1, 1]);
        match (edit.map(|edit| &edit.kind), pixels) {
            (Some(EditKind::ImageToImage { .. }), Some(pixels)) => {
                let image = self.encode(&pixels, count, &mut draw)?;
                let sample = scheduler.add_noise(&image, &draw()?, first);
                Ok(Start { sample, extra: vec![None], kept: None })
            }
            (Some(EditKind::Inpaint { mask, .. }), Some(pixels)) => {
                let reads_image = self.denoiser.in_channels() > shape[0];
                let mask = to_mask(mask, width, height).to_device(self.device);
                let from_start = settings.strength == Some(1.0);
                let image = match reads_image && from_start {
                    true => None,
                    false => Some(self.encode(&pixels, count, &mut draw)?),
                };
                let noise = draw()?;
                let sample = match &image {
                    Some(image) if !from_start => scheduler.add_noise(image, &noise, first),
                    _ => from_noise(&noise),
                };
                let rest = self.encode(&(&pixels * mask.lt(0.5)), count, &mut draw)?;
                let mask = all(mask.upsample_nearest2d([rows, columns], None, None));
                Ok(match (reads_image, image) {
                    (false, Some(image)) => {
                        Start { sample, extra: vec![None], kept: Some((1.0 - mask, image, noise)) }
                    }
                    _ => Start { sample, extra: vec![Some(Tensor::cat(&[mask, rest], 1))], kept: None },
                })
            }
            (Some(EditKind::Instruct), Some(pixels)) => {
                // The mean of the latents, not scaled, as the models were trained.
                let pixels = match images {
                    [] => all(pixels),
                    images => {
                        let each = images.iter().map(|image| to_pixel_values(image, width, height));
                        Tensor::cat(&each.collect::<Vec<_>>(), 0).to_device(self.device)
                    }
                };
                let image = self.vae.as_ref().map_or(pixels.shallow_clone(), |vae| vae.encode(&pixels).mean);
                let none = image.zeros_like();
                let sample = from_noise(&draw()?);
                Ok(Start {
                    sample,
                    extra: vec![Some(image.shallow_clone()), Some(image), Some(none)],
                    kept: None,
                })
            }
            _ => {
                let sample = from_noise(&draw()?);
                let reads_image = self.denoiser.in_channels() > shape[0];
                let extra = reads_image.then(|| sample.zeros_like());
                Ok(Start { sample, extra: vec![extra], kept: None })
            }
        }
    }

    /// The latents of `pixels` `[1, 3, H, W]` for `count` images, each drawn from its own noise.
    fn encode(
        &self,
        pixels: &Tensor,
        count: usize,
        draw: &mut dyn FnMut() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some(vae) = &self.vae else { return Ok(pixels.repeat([count as i64, 1, 1, 1])) };
        Ok(vae.scale_latents(&vae.encode(pixels).sample(&draw()?)))
    }
}

/// Refuses a sample with numbers that are not finite, by its seed.
fn check_finite(sample: &Tensor, requests: &[ImageRequest]) -> Result<()> {
    for (index, request) in (0..).zip(requests) {
        if sample.get(index).isfinite().all().int64_value(&[]) == 0 {
            return Err(Error::Model(format!(
                "the image of seed {} is not finite: try precision f32, or another scheduler",
                request.seed
            )));
        }
    }
    Ok(())
}
