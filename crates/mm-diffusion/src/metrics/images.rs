//! The features of a folder's images.

use super::{Features, MetricsError, Result};
use mm_clip::{ImageEmbedder, check_rows};
use mm_core::upload;
use mm_data::{BadSample, Fault, Item};
use mm_image::RgbImage;
use mm_train::{EvalContext, EvalSet};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The images of a set with their features.
#[derive(Debug)]
pub struct ImageFeatures {
    /// The features of the images that could be read.
    pub features: Features,
    /// Their keys, in the order of the rows.
    pub keys: Vec<String>,
    /// The images that could not be read.
    pub bad: Vec<BadSample>,
}

/// A resized image with its key.
struct KeyedImage {
    image: RgbImage,
    key: String,
}

impl Item for KeyedImage {
    fn bytes(&self) -> usize {
        self.image.bytes()
    }
}

impl ImageFeatures {
    /// The output of the tower of `model`, with its projection and not scaled to length 1, for all images of
    /// `set`. One process reads them all.
    ///
    /// # Errors
    /// More images are bad than the set allows, none is good, or a feature is not finite.
    pub fn embed_set(model: &ImageEmbedder, set: &EvalSet, context: &EvalContext) -> Result<Self> {
        let (mut keys, mut rows) = (Vec::with_capacity(set.len()), Vec::new());
        let read = set.for_each_batch(context, resize(model, set), |items: Vec<KeyedImage>, _| {
            let (images, read): (Vec<_>, Vec<_>) =
                items.into_iter().map(|item| (item.image, item.key)).unzip();
            rows.push(forward(model, &images)?);
            keys.extend(read);
            Ok(())
        })?;
        if keys.is_empty() {
            return Err(MetricsError::Features(format!("no image of {} can be read", set.name)));
        }
        let rows = Tensor::f_cat(&rows, 0)?;
        check_rows(&rows, |row| keys[row].clone())?;
        Ok(Self { features: Features::new(&rows)?, keys, bad: read.bad })
    }
}

/// The features `[N, D]` f32 of resized images, in one batch.
fn forward(model: &ImageEmbedder, images: &[RgbImage]) -> mm_clip::Result<Tensor> {
    let pixel_values = upload(&model.processor.normalize_batch(images)?, model.device);
    let rows = mm_sys::inference_mode(|| model.encoder.forward(&pixel_values, false));
    Ok(rows.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?)
}

/// Decodes and resizes an image as the tower's preprocessing does.
fn resize(model: &ImageEmbedder, set: &EvalSet) -> mm_data::Map<KeyedImage> {
    let (background, fast_decode, processor) = (set.background, set.fast_decode, model.processor.clone());
    Arc::new(move |sample: &mm_data::Sample, _: &mut mm_data::SampleRng| {
        let divisor = |width, height| if fast_decode { processor.largest_divisor(width, height) } else { 1 };
        let image = sample.image()?.decode_reduced(background, divisor)?;
        let resized = processor.resize_reduced(&image);
        let image = resized.map_err(|error| mm_data::Error::bad(Fault::Image, error.to_string()))?;
        Ok(KeyedImage { image, key: sample.key.clone() })
    })
}
