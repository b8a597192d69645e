//! Per-channel numbers of preprocessing configs.

use crate::error::{Error, Result};
use mm_image::Normalize;
use serde::Deserialize;

/// One number for all channels, or one for each of the three.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number or three, for red, green and blue")]
pub(crate) enum Channels {
    All(f64),
    Each([f64; 3]),
}

impl Channels {
    pub(crate) fn each(self) -> [f64; 3] {
        match self {
            Self::All(value) => [value; 3],
            Self::Each(values) => values,
        }
    }
}

/// transformers' factor that maps 255 to 1.
pub(crate) const PER_LEVEL: f64 = 1.0 / 255.0;

/// The keys of a `preprocessor_config.json` that say how pixels become numbers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Normalization {
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
}

impl Normalization {
    /// The normalization, with `default` where a key is absent or null.
    ///
    /// # Errors
    /// As [`normalize`].
    pub(crate) fn or_default(self, default: Normalize) -> Result<Normalize> {
        let factor = match self.do_rescale {
            Some(false) => 1.0,
            _ => self.rescale_factor.unwrap_or(PER_LEVEL),
        };
        if self.do_normalize == Some(false) {
            return normalize(factor, [0.0; 3], [1.0; 3]);
        }
        let or_default =
            |given: Option<Channels>, default: [f32; 3]| given.map_or(default.map(shortest), Channels::each);
        let mean = or_default(self.image_mean, default.mean);
        normalize(factor, mean, or_default(self.image_std, default.std))
    }
}

/// `(level factor - mean) / std` as a [`Normalize`], which maps `level / 255`.
///
/// # Errors
/// A number is not finite, or `factor` or `std` not above 0.
pub(crate) fn normalize(factor: f64, mean: [f64; 3], std: [f64; 3]) -> Result<Normalize> {
    // (level factor - mean) / std = (level / 255 - mean s) / (std s) with s = 1 / (255 factor).
    let scale = 1.0 / (255.0 * factor);
    let scaled =
        Normalize { mean: mean.map(|mean| (mean * scale) as f32), std: std.map(|std| (std * scale) as f32) };
    let is_above_0 = |value: f32| value.is_finite() && value > 0.0;
    if !(factor > 0.0 && is_above_0(scale as f32)) {
        return Err(Error::Processor(format!("rescale_factor is {factor}: it must be above 0")));
    }
    if !(scaled.mean.iter().all(|mean| mean.is_finite()) && scaled.std.into_iter().all(is_above_0)) {
        let text = format!("mean {mean:?} and std {std:?} must be finite, and the latter above 0");
        return Err(Error::Processor(text));
    }
    Ok(scaled)
}

/// The f64 with the fewest digits that rounds to this f32, so that files contain 0.48145466 rather than
/// 0.4814546704292297.
pub(crate) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
