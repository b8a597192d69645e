//! The configuration of a run with `run.task = "autoencoder"`.

use crate::vae::VaeConfig;
use mm_core::config::{ConfigError, ConfigFile};
use mm_image::Augment;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use serde::{Deserialize, Serialize};

/// A run with `run.task = "autoencoder"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: AutoencoderModelConfig,
    /// The loss.
    #[serde(default)]
    pub objective: AutoencoderObjective,
    /// Random crops, flips and colors; none: the whole height or width, cut from the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
}

/// `[model]`: an autoencoder `from` a folder, or a new one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderModelConfig {
    /// The `AutoencoderKL` to start from: its folder, or a hub name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The sizes of a new one, named as in diffusers' `AutoencoderKL`. `sample_size` is the side of its
    /// images in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<VaeConfig>,
}

/// `[objective]`: the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderObjective {
    /// The weight of the divergence of an image's latents from the standard normal distribution, beside the
    /// sum of the absolute errors of its pixels.
    pub kl_weight: f64,
    /// The distance of reconstructions from their images in the features of an image tower; none: pixels
    /// alone count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perceptual: Option<PerceptualConfig>,
}

/// `[objective.perceptual]`: the perceptual part of the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerceptualConfig {
    /// The folder or hub name of a CLIP or a single image tower.
    pub model: String,
    /// The weight of the distance.
    #[serde(default = "default_perceptual_weight")]
    pub weight: f64,
}

fn default_perceptual_weight() -> f64 {
    1.0
}

impl Default for AutoencoderObjective {
    fn default() -> Self {
        Self { kl_weight: 1e-6, perceptual: None }
    }
}

impl TaskConfig for AutoencoderRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let AutoencoderModelConfig { from, autoencoder } = &self.model;
        match (from, autoencoder) {
            (Some(_), Some(_)) => {
                let has = "the autoencoder that `model.from` names has its sizes already";
                return file.check(false, "model.autoencoder", has);
            }
            (None, None) => {
                let missing = "missing (or `model.from`, for one that exists)";
                return file.check(false, "model.autoencoder", missing);
            }
            (_, Some(sizes)) => {
                sizes
                    .validate()
                    .or_else(|error| file.check(false, "model.autoencoder", error.to_string()))?;
                let (side, unit) = (sizes.sample_size, sizes.reduction());
                let problem = format!("is {side}: this model needs a multiple of {unit}");
                file.check(side % unit == 0, "model.autoencoder.sample_size", problem)?;
                let channels = format!("reads {}, gives {}", sizes.in_channels, sizes.out_channels);
                let has_three = sizes.in_channels == 3 && sizes.out_channels == 3;
                file.check(has_three, "model.autoencoder", format!("{channels}: images have 3 channels"))?;
            }
            (Some(_), None) => {}
        }
        let AutoencoderObjective { kl_weight, perceptual } = &self.objective;
        let perceptual = perceptual.as_ref().map(|perceptual| ("perceptual.weight", perceptual.weight));
        for (key, weight) in [("kl_weight", *kl_weight)].into_iter().chain(perceptual) {
            let problem = format!("must be at least 0, is {weight}");
            file.check(weight.is_finite() && weight >= 0.0, &format!("objective.{key}"), problem)?;
        }
        let augment = self.augment.as_ref().map_or(Ok(()), Augment::check);
        augment.or_else(|error| file.check(false, "augment", error.to_string()))
    }
}
