//! The form of Hugging Face's `preprocessor_config.json`, in and out.

use crate::error::{Error, Result};
use crate::processor::{ImageProcessor, Resize};
use mm_data::Normalize;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a file may hold; transformers adds many keys that have no bearing on the pixels, so unknown ones are passed over.
#[derive(Debug, Deserialize)]
pub(crate) struct PreprocessorConfig {
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<Size>,
    #[serde(default = "bicubic")]
    resample: u8,
    /// Only processors that crop write it, or its size.
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "per_level")]
    rescale_factor: f64,
    #[serde(default = "yes")]
    do_normalize: bool,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

/// A size in pixels, in the three ways of writing it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(u32),
    ShortestEdge { shortest_edge: u32 },
    Exact { height: u32, width: u32 },
}

fn yes() -> bool {
    true
}

fn bicubic() -> u8 {
    3
}

fn per_level() -> f64 {
    1.0 / 255.0
}

impl PreprocessorConfig {
    /// The processor that the file describes.
    pub(crate) fn processor(&self) -> Result<ImageProcessor> {
        let crops = self.do_center_crop.unwrap_or(self.crop_size.is_some());
        let crop = match (crops, self.crop_size) {
            (false, _) => None,
            (true, Some(Size::Side(side))) => Some((side, side)),
            (true, Some(Size::Exact { height, width })) => Some((width, height)),
            (true, Some(Size::ShortestEdge { .. })) => {
                return wrong("crop_size has shortest_edge: it must have height and width".into());
            }
            (true, None) => return wrong("do_center_crop is true without crop_size".into()),
        };
        let resize = match (self.do_resize, self.size) {
            (false, _) => None,
            // Old files give one number. Those that crop after it meant the short side, the others a square.
            (true, Some(Size::Side(side))) if crops => Some(Resize::ShortSide(side)),
            (true, Some(Size::Side(side))) => Some(Resize::Exact(side, side)),
            (true, Some(Size::ShortestEdge { shortest_edge })) => Some(Resize::ShortSide(shortest_edge)),
            (true, Some(Size::Exact { height, width })) => Some(Resize::Exact(width, height)),
            (true, None) => return wrong("do_resize is true without size".into()),
        };
        if resize.is_some() && self.resample != bicubic() {
            return wrong(format!("resample is {}: only 3, bicubic, is offered", self.resample));
        }
        ImageProcessor::new(resize, crop, self.normalize()?)
    }

    /// Rescaling and normalising as one affine map of `level / 255`.
    fn normalize(&self) -> Result<Normalize> {
        let factor = if self.do_rescale { self.rescale_factor } else { 1.0 };
        if !(factor.is_finite() && factor > 0.0) {
            return wrong(format!("rescale_factor is {factor}: it must be above 0"));
        }
        let (mean, std) = match (self.do_normalize, self.image_mean, self.image_std) {
            (false, _, _) => ([0.0; 3], [1.0; 3]),
            (true, Some(mean), Some(std)) => (mean, std),
            (true, _, _) => return wrong("do_normalize is true without image_mean and image_std".into()),
        };
        if !(mean.iter().all(|mean| mean.is_finite()) && std.iter().all(|std| std.is_finite() && *std > 0.0)) {
            return wrong(format!("image_mean {mean:?} and image_std {std:?} must be finite, and the latter above 0"));
        }
        // (level factor - mean) / std = (level / 255 - mean s) / (std s) with s = 1 / (255 factor).
        let scale = 1.0 / (255.0 * factor);
        Ok(Normalize { mean: mean.map(|mean| (mean * scale) as f32), std: std.map(|std| (std * scale) as f32) })
    }
}

/// What [`PreprocessorConfig`] reads back to the same processor.
pub(crate) fn to_json(processor: &ImageProcessor) -> Value {
    let mut config = json!({
        "do_convert_rgb": true,
        "do_resize": processor.resize.is_some(),
        "resample": bicubic(),
        "do_center_crop": processor.crop.is_some(),
        "do_rescale": true,
        "rescale_factor": per_level(),
        "do_normalize": true,
        "image_mean": processor.normalize.mean.map(shortest),
        "image_std": processor.normalize.std.map(shortest),
        // CLIP's is the one of transformers that does all that is said above.
        "image_processor_type": "CLIPImageProcessor",
    });
    match processor.resize {
        Some(Resize::ShortSide(side)) => config["size"] = json!({"shortest_edge": side}),
        Some(Resize::Exact(width, height)) => config["size"] = json!({"height": height, "width": width}),
        None => {}
    }
    if let Some((width, height)) = processor.crop {
        config["crop_size"] = json!({"height": height, "width": width});
    }
    config
}

/// The f64 with the fewest digits that is this f32, so that files say 0.5 and 0.48145466 rather than 0.4814546704292297.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn wrong<T>(text: String) -> Result<T> {
    Err(Error::Processor(text))
}
