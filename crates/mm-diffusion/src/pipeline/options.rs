//! What images are asked for.

use crate::{Error, Result};
use mm_image::RgbImage;
use serde::Serialize;
use serde_json::Value;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// The text that it shows.
    pub prompt: String,
    /// A text that it must not show.
    pub negative_prompt: Option<String>,
    /// Decides its noise.
    pub seed: u64,
}

/// An image that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedImage {
    /// The image, black where it is flagged.
    pub picture: RgbImage,
    /// Whether the safety checker found it unsafe; none where no checker was applied.
    pub is_flagged: Option<bool>,
}

/// How images are generated.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Height in pixels; the model's own if absent.
    pub height: Option<i64>,
    /// Width in pixels; the model's own if absent.
    pub width: Option<i64>,
    /// Steps of the scheduler; the pipeline's own if absent.
    pub steps: Option<usize>,
    /// How much the prompt counts against no prompt (Ho & Salimans 2022): on above 1. The pipeline's own if
    /// absent.
    pub guidance_scale: Option<f64>,
    /// InstructPix2Pix: how much the given image counts; on from 1.
    pub image_guidance_scale: f64,
    /// How far the guided prediction gets the deviation of the unguided one (Lin et al. 2024, section 3.4),
    /// from 0 to 1.
    pub guidance_rescale: f64,
    /// The part of the steps with guidance, from 0 to 1 (Kynkäänniemi et al. 2024).
    pub guidance_interval: [f64; 2],
    /// Whether guidance computes its two predictions one after the other: half the memory.
    pub guidance_in_two_passes: bool,
    /// DDIM: the share of DDPM's noise.
    pub eta: f64,
    /// The number of last layers of a CLIP that prompts leave out.
    pub clip_skip: usize,
    /// Whether latents are decoded in tiles: less memory, and another result at the seams.
    pub tiled_decoding: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            height: None,
            width: None,
            steps: None,
            guidance_scale: None,
            image_guidance_scale: 1.5,
            guidance_rescale: 0.0,
            guidance_interval: [0.0, 1.0],
            guidance_in_two_passes: false,
            eta: 0.0,
            clip_skip: 0,
            tiled_decoding: false,
        }
    }
}

/// The settings that images are made with, after every default and override of the pipeline: printed, and
/// stored with each image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Width in pixels.
    pub width: i64,
    /// Height in pixels.
    pub height: i64,
    /// Steps of the scheduler.
    pub steps: usize,
    /// Calls of the model: fewer than steps where an image is given, more with some schedulers.
    pub calls: usize,
    /// See [`GenerateOptions::guidance_scale`].
    pub guidance_scale: f64,
    /// See [`GenerateOptions::image_guidance_scale`]; where an image guides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_guidance_scale: Option<f64>,
    /// See [`GenerateOptions::guidance_rescale`].
    pub guidance_rescale: f64,
    /// See [`GenerateOptions::guidance_interval`].
    pub guidance_interval: [f64; 2],
    /// How far a given image is changed, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// See [`GenerateOptions::clip_skip`].
    pub clip_skip: usize,
    /// See [`GenerateOptions::eta`].
    pub eta: f64,
    /// All settings of the scheduler.
    pub scheduler: Value,
}

impl GenerateOptions {
    /// Checks the numbers that have a range of their own.
    ///
    /// # Errors
    /// Names the first that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::Request(format!("{name} {value}: it is from 0 to 1"))),
        };
        share("guidance_rescale", self.guidance_rescale)?;
        share("eta", self.eta)?;
        let [first, last] = self.guidance_interval;
        share("guidance_interval", first)?;
        share("guidance_interval", last)?;
        if first > last {
            return Err(Error::Request(format!(
                "guidance_interval {first} to {last}: it ends before it begins"
            )));
        }
        for (name, scale) in [
            ("guidance_scale", self.guidance_scale.unwrap_or(1.0)),
            ("image_guidance_scale", self.image_guidance_scale),
        ] {
            if !(0.0..=1000.0).contains(&scale) {
                return Err(Error::Request(format!("{name} {scale}: it is from 0 to 1000")));
            }
        }
        Ok(())
    }
}

/// `size` pixels, where it is a multiple of `unit` and no more than the `most` of the model.
///
/// # Errors
/// Names the nearest sizes that are.
pub(super) fn legal_side(name: &str, size: i64, unit: i64, most: Option<i64>) -> Result<i64> {
    const MOST: i64 = 1 << 14;
    let limit = most.map_or(String::new(), |most| format!(" up to {most}"));
    let most = most.unwrap_or(MOST).min(MOST);
    if size >= unit && size % unit == 0 && size <= most {
        return Ok(size);
    }
    let below = (size.min(most) / unit).max(1) * unit;
    let has_next = below < size && below + unit <= most;
    let near = if has_next { format!("{below} or {}", below + unit) } else { format!("{below}") };
    Err(Error::Request(format!("{name} {size}: it must be a multiple of {unit}{limit}, e.g. {near}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_not_legal_is_refused_with_the_nearest_that_are() {
        assert_eq!(legal_side("width", 512, 8, None).unwrap(), 512);
        assert_eq!(legal_side("width", 512, 8, Some(512)).unwrap(), 512);
        for (size, most, near) in [
            (513, None, "e.g. 512 or 520"),
            (3, None, "e.g. 8"),
            (0, None, "e.g. 8"),
            (-5, None, "e.g. 8"),
            (100_000, None, "e.g. 16384"),
            (513, Some(512), "up to 512, e.g. 512"),
            (1024, Some(512), "up to 512, e.g. 512"),
        ] {
            let error = legal_side("width", size, 8, most).unwrap_err().to_string();
            assert!(error.starts_with(&format!("width {size}:")) && error.ends_with(near), "{error}");
        }
    }

    #[test]
    fn numbers_out_of_their_range_are_named() {
        for (options, name) in [
            (GenerateOptions { eta: 1.5, ..GenerateOptions::default() }, "eta 1.5"),
            (
                GenerateOptions { guidance_scale: Some(f64::NAN), ..GenerateOptions::default() },
                "guidance_scale",
            ),
            (GenerateOptions { guidance_interval: [0.8, 0.2], ..GenerateOptions::default() }, "ends before"),
        ] {
            assert!(options.validate().unwrap_err().to_string().contains(name));
        }
    }
}
