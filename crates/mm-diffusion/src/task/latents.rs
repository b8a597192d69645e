//! The autoencoder of a new model, with the scale of its latents.

use super::config::DiffusionRunConfig;
use crate::framing::Framing;
use crate::pipeline::stack_pixel_values;
use crate::vae::{Vae, VaeConfig};
use crate::{Error, Result};
use mm_core::hf::HfFolder;
use mm_core::upload;
use mm_data::Dataset;
use mm_sys::inference_mode;
use serde_json::Value;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// The images that the deviation of latents is measured on.
const MEASURED: usize = 256;

/// Opens the autoencoder `vae` below `vae` of `vs`. Its latents are scaled to a deviation of 1, as measured
/// on the first images of the training set; a run that resumes takes the scale from its checkpoint.
pub(super) fn autoencoder(
    vae: &str,
    config: &DiffusionRunConfig,
    checkpoint: Option<&Path>,
    dataset: &dyn Dataset,
    vs: &VarStore,
) -> Result<Vae> {
    let mut vae = Vae::load_below(vae, vs, "vae")?;
    let factor = match checkpoint {
        Some(checkpoint) => {
            VaeConfig::from_hf(&HfFolder::at(checkpoint.join("vae")).config::<Value>()?)?.scaling_factor
        }
        None => vae.config().scaling_factor / scaled_deviation(&vae, config, dataset)?,
    };
    vae.set_scaling_factor(factor);
    Ok(vae)
}

/// The deviation of the latents of the first images as they are scaled now.
fn scaled_deviation(vae: &Vae, config: &DiffusionRunConfig, dataset: &dyn Dataset) -> Result<f64> {
    let transformer = config.model.transformer.as_ref();
    let side = transformer.map_or(1, |transformer| transformer.sample_size * vae.config().reduction());
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for index in 0..dataset.len().min(MEASURED) {
        // A sample that cannot be read is counted when training reads it.
        let Ok(sample) = dataset.sample(index) else { continue };
        let Some(Ok(image)) = sample.images.last().map(|image| image.decode(config.data.background)) else {
            continue;
        };
        let image = Framing::new(image.dimensions(), (side as u32, side as u32)).apply(image);
        let pixels = upload(&stack_pixel_values([&image]), vae.device());
        let latents = inference_mode(|| vae.scale_latents(&vae.encode(&pixels).mean).to_kind(Kind::Double));
        let total = |x: &Tensor| x.sum(Kind::Double).double_value(&[]);
        count += latents.numel() as f64;
        sum += total(&latents);
        squares += total(&latents.square());
    }
    let deviation = (squares / count - (sum / count).powi(2)).sqrt();
    if deviation.is_finite() && deviation > 0.0 {
        return Ok(deviation);
    }
    Err(Error::Model(format!(
        "model.vae: the latents of the first {MEASURED} images of {} have a standard deviation of 0: no \
         image can be read, or the autoencoder is not trained",
        dataset.name()
    )))
}
