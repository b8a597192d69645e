//! Brightness.

use crate::reward::{DifferentiableReward, batch_size, check_count};
use crate::{Result, Reward};
use mm_image::RgbImage;
use tch::{Kind, Tensor};

/// The mean of an image's pixels, from 0 to 1; the prompt is not read. A reward that is only there to be
/// exploited: every method raises it at once, and guards must notice what is lost.
#[derive(Clone, Copy, Debug)]
pub struct Brightness;

impl Reward for Brightness {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let mean = |image: &RgbImage| {
            let sum: u64 = image.as_raw().iter().map(|&level| u64::from(level)).sum();
            (sum as f64 / (255.0 * image.as_raw().len().max(1) as f64)) as f32
        };
        Ok(images.iter().map(mean).collect())
    }

    fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
        Some(self)
    }
}

impl DifferentiableReward for Brightness {
    fn score_pixels(&self, pixels: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        check_count(batch_size(pixels), prompts)?;
        Ok(pixels.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_image::image::Rgb;

    #[test]
    fn white_is_1_and_pixels_give_the_same() {
        let images = [RgbImage::from_pixel(3, 2, Rgb([255; 3])), RgbImage::from_pixel(3, 2, Rgb([51, 0, 0]))];
        let scores = Brightness.score(&images, &["", ""]).unwrap();
        assert!((scores[0] - 1.0).abs() < 1e-6 && (scores[1] - 0.2 / 3.0).abs() < 1e-6, "{scores:?}");
        let pixels = Tensor::from_slice(&[1f32, 1.0, 1.0, 0.2, 0.0, 0.0]).view([2, 3, 1, 1]);
        let scores = Vec::<f32>::try_from(Brightness.score_pixels(&pixels, &["", ""]).unwrap()).unwrap();
        assert!((scores[1] - 0.2 / 3.0).abs() < 1e-6, "{scores:?}");
    }
}
