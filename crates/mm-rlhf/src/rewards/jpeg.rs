//! The size of an image as a JPEG.

use crate::reward::check_count;
use crate::{Error, Result, Reward};
use mm_image::RgbImage;
use mm_image::image::codecs::jpeg::JpegEncoder;

/// The size of an image as a JPEG in kB (1000 bytes), or its negative; the prompt is not read. The rewards
/// "incompressibility" and "compressibility" of DDPO (Black et al. 2023, section 5.1,
/// <https://arxiv.org/abs/2305.13301>).
///
/// The encoder does not subsample colors as libjpeg does by default, so that files are larger than Pillow's;
/// the order of images is the same but where they are close.
#[derive(Clone, Copy, Debug)]
pub struct JpegSize {
    /// The quality, 1 to 100.
    pub quality: u8,
    /// Whether smaller files have the higher scores.
    pub is_negative: bool,
}

impl Reward for JpegSize {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        check_count(images.len(), prompts)?;
        let mut bytes = Vec::new();
        let score = |(index, image): (usize, &RgbImage)| {
            bytes.clear();
            let encoder = JpegEncoder::new_with_quality(&mut bytes, self.quality);
            image.write_with_encoder(encoder).map_err(|error| {
                let (width, height) = image.dimensions();
                Error::Request(format!("image {index} of {width} x {height} is no JPEG: {error}"))
            })?;
            let kilobytes = bytes.len() as f32 / 1000.0;
            Ok(if self.is_negative { -kilobytes } else { kilobytes })
        };
        images.iter().enumerate().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_image::image::Rgb;

    #[test]
    fn noise_is_larger_than_a_plain_image_and_compressibility_is_the_negative() {
        let plain = RgbImage::from_pixel(64, 64, Rgb([90; 3]));
        let noise = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * 37 + y * 101) as u8, (x * y) as u8, 7]));
        let score = |is_negative| {
            JpegSize { quality: 95, is_negative }.score(&[plain.clone(), noise.clone()], &["", ""]).unwrap()
        };
        let (plus, minus) = (score(false), score(true));
        assert!(0.3 < plus[0] && plus[0] < 2.0 && plus[1] > 2.0 * plus[0], "{plus:?}");
        assert_eq!(minus, [-plus[0], -plus[1]]);
    }

    #[test]
    fn an_image_without_pixels_is_refused() {
        let reward = JpegSize { quality: 95, is_negative: false };
        let message = reward.score(&[RgbImage::new(0, 3)], &[""]).unwrap_err().to_string();
        assert!(message.starts_with("image 0 of 0 x 3 is no JPEG"), "{message}");
    }
}
