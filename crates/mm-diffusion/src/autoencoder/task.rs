//! The training task.

use super::config::AutoencoderRunConfig;
use super::evaluate::evaluate;
use super::perceptual::PerceptualLoss;
use crate::framing::Framing;
use crate::noise::ImageNoise;
use crate::pipeline::{WEIGHTS, stack_pixel_values};
use crate::vae::Vae;
use mm_core::checkpoint::{stored, write};
use mm_core::hf::CONFIG_FILE;
use mm_core::{OpenOptions, seed, upload, write_json};
use mm_data::{Map, Sample, SampleRng};
use mm_image::{Augment, RgbImage};
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Task, TaskContext};
use rand::RngExt;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains a [`Vae`].
pub struct AutoencoderTask {
    vs: VarStore,
    vae: Vae,
    kl_weight: f64,
    perceptual: Option<PerceptualLoss>,
    augment: Option<Augment>,
    background: [u8; 3],
}

/// An image, and the seed of the noise that its latents are drawn with.
pub struct AutoencoderItem {
    pub(super) image: RgbImage,
    noise_seed: u64,
}

impl mm_data::Item for AutoencoderItem {
    fn bytes(&self) -> usize {
        self.image.as_raw().len()
    }
}

/// Images on the model's device.
pub struct AutoencoderBatch {
    /// In -1 to 1, `[B, 3, H, W]`.
    pixel_values: Tensor,
    /// Standard normal, of the shape of the latents.
    noise: Tensor,
}

impl AutoencoderTask {
    fn build(config: &AutoencoderRunConfig, context: &TaskContext) -> crate::Result<Self> {
        let vs = VarStore::new(context.device);
        seed::set(config.run.seed, "init", 0);
        let vae = match (&config.model.from, &config.model.autoencoder) {
            (Some(from), _) => context.open_base(
                from,
                |from| Vae::load(from, &vs),
                |checkpoint| Vae::load(&checkpoint.to_string_lossy(), &vs),
            )?,
            (None, Some(sizes)) => Vae::new(&vs.root(), sizes)?,
            (None, None) => return Err(crate::Error::Model("[model] has no autoencoder".to_owned())),
        };
        let perceptual = config.objective.perceptual.as_ref();
        let perceptual =
            perceptual.map(|perceptual| PerceptualLoss::open(perceptual, context.device)).transpose()?;
        let (kl_weight, augment) = (config.objective.kl_weight, config.augment.clone());
        Ok(Self { vs, vae, kl_weight, perceptual, augment, background: config.data.background })
    }
}

/// Decodes the image and brings it to the model's size.
pub(super) fn preprocess(vae: &Vae, augment: Option<Augment>, background: [u8; 3]) -> Map<AutoencoderItem> {
    let side = vae.config().sample_size as u32;
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        let noise_seed = rng.random();
        let image = sample.image()?.decode(background)?;
        let image = match &augment {
            Some(augment) => augment.apply(&image, side, rng),
            None => Framing::new(image.dimensions(), (side, side)).apply(image),
        };
        Ok(AutoencoderItem { image, noise_seed })
    })
}

impl Task for AutoencoderTask {
    const NAME: &'static str = "autoencoder";
    type Config = AutoencoderRunConfig;
    type Item = AutoencoderItem;
    type Batch = AutoencoderBatch;
    type Model = Vae;

    fn new(config: &AutoencoderRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        &self.vs
    }

    fn preprocess(&self) -> Map<AutoencoderItem> {
        preprocess(&self.vae, self.augment.clone(), self.background)
    }

    fn collate(&self, items: Vec<AutoencoderItem>) -> Result<AutoencoderBatch> {
        let config = self.vae.config();
        let side = config.sample_size / config.reduction();
        let seeds: Vec<u64> = items.iter().map(|item| item.noise_seed).collect();
        let noise = ImageNoise::new(&seeds).draw(&[config.latent_channels, side, side])?;
        let device = self.vs.device();
        Ok(AutoencoderBatch { pixel_values: pixel_values(&items, device), noise: upload(&noise, device) })
    }

    fn loss(&self, batch: &AutoencoderBatch) -> Result<Loss> {
        let encoded = self.vae.encode(&batch.pixel_values);
        let found = self.vae.decode(&encoded.sample(&batch.noise));
        let l1 = (&found - &batch.pixel_values).abs().mean(Kind::Float);
        // Both sums over an image, divided by its numbers.
        let numbers = batch.pixel_values.size()[1..].iter().product::<i64>() as f64;
        let kl = encoded.kl().mean(Kind::Float) / numbers;
        let mut total = &l1 + &kl * self.kl_weight;
        let mut parts = vec![("l1", l1), ("kl", kl)];
        if let Some(perceptual) = &self.perceptual {
            let distance = perceptual.distances(&found, &batch.pixel_values)?.mean(Kind::Float);
            total += &distance * perceptual.weight;
            parts.push(("perceptual", distance));
        }
        Ok(Loss { total, parts })
    }

    fn model(&self) -> &Vae {
        &self.vae
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        self.describe_checkpoint(folder)?;
        let file = folder.join(format!("{WEIGHTS}.safetensors"));
        Ok(write(&file, &stored(self.vs.variables(), &Vae::LAYOUT))?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&folder.join(CONFIG_FILE), &self.vae.config().to_hf())?)
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<Vae> {
        Ok(Vae::open(name, options)?)
    }

    fn evaluate(
        vae: &Vae,
        config: &AutoencoderRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        Ok(evaluate(vae, config, set, context)?)
    }

    fn describe_batch(&self, batch: &AutoencoderBatch) -> String {
        format!("images {:?}, latents {:?}", batch.pixel_values.size(), batch.noise.size())
    }
}

/// `[B, 3, H, W]` in -1 to 1.
pub(super) fn pixel_values(items: &[AutoencoderItem], device: tch::Device) -> Tensor {
    upload(&stack_pixel_values(items.iter().map(|item| &item.image)), device)
}
