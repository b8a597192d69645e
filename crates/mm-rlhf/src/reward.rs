//! The interface of rewards.

use crate::{Error, Result};
use mm_image::RgbImage;
use std::fmt::Debug;
use tch::Tensor;

/// Scores images, given the prompts that they were made for: the higher, the better.
///
/// A score depends on its own image and prompt alone, not on the others of the batch.
pub trait Reward: Debug {
    /// The scores `[N]` of `images` `[N]` of any size, each with the prompt at its index.
    ///
    /// # Errors
    /// The numbers of images and prompts differ, an image has no pixels, or the reward cannot read a prompt.
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>>;

    /// The same reward with gradients, if it has any; none by default.
    fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
        None
    }
}

/// A reward with gradients in pixels.
pub trait DifferentiableReward {
    /// The scores `[N]`, f32, of `pixels` `[N, 3, H, W]`, f32 from 0 to 1, on the device of the reward's
    /// model; with gradients to `pixels`. They equal [`Reward::score`] but for the 8 bits to which images are
    /// rounded there.
    ///
    /// # Errors
    /// As [`Reward::score`], or `pixels` has another shape.
    fn score_pixels(&self, pixels: &Tensor, prompts: &[&str]) -> Result<Tensor>;
}

/// Checks that there are as many images as prompts.
pub(crate) fn check_count(images: usize, prompts: &[&str]) -> Result<()> {
    if images == prompts.len() {
        return Ok(());
    }
    Err(Error::Request(format!("{images} images with {} prompts: each image has one", prompts.len())))
}

/// The first dimension of `pixels`; the others are checked where they are processed.
pub(crate) fn batch_size(pixels: &Tensor) -> usize {
    pixels.size().first().map_or(0, |&count| count as usize)
}

/// Each of `prompts` once, in order of first use, and the place of each prompt among them `[N]`, i64: a group
/// of samples of one prompt encodes it once.
pub(crate) fn distinct<'a>(prompts: &[&'a str]) -> (Vec<&'a str>, Tensor) {
    let mut texts: Vec<&str> = Vec::new();
    let mut place = |prompt: &'a str| {
        texts.iter().position(|&text| text == prompt).unwrap_or_else(|| {
            texts.push(prompt);
            texts.len() - 1
        })
    };
    let places: Vec<i64> = prompts.iter().map(|prompt| place(prompt) as i64).collect();
    (texts, Tensor::from_slice(&places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_encoded_once_each() {
        let (texts, places) = distinct(&["b", "a", "b", "c", "a"]);
        assert_eq!(texts, ["b", "a", "c"]);
        assert_eq!(Vec::<i64>::try_from(places).unwrap(), [0, 1, 0, 2, 1]);
    }
}
