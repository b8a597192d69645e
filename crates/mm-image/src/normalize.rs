//! Normalization: from 8-bit pixels to the numbers that a model reads.

use image::RgbImage;

/// Mean and standard deviation of each channel, for pixel values in the range 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// The mean of red, green and blue.
    pub mean: [f32; 3],
    /// The standard deviation of red, green and blue.
    pub std: [f32; 3],
}

impl Normalize {
    /// OpenAI CLIP's constants, which most CLIP checkpoints use.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };
    /// ImageNet's constants, which torchvision's classifiers use.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// Maps to the range -1 to 1: SigLIP, ViT and diffusion models.
    pub const HALF: Self = Self { mean: [0.5; 3], std: [0.5; 3] };

    /// Writes `(value / 255 - mean) / std` of every pixel to `out`, `[3, H, W]`, in one pass. The results
    /// equal torchvision's `ToTensor` and `Normalize` bit for bit.
    ///
    /// # Panics
    /// `out` does not hold 3 x H x W numbers.
    ///
    /// ```
    /// use mm_image::{Normalize, RgbImage};
    /// let mut out = [0.0; 3 * 2 * 2];
    /// Normalize::HALF.write(&RgbImage::from_pixel(2, 2, [255, 0, 51].into()), &mut out);
    /// assert_eq!((out[0], out[4]), (1.0, -1.0));
    /// ```
    pub fn write(&self, image: &RgbImage, out: &mut [f32]) {
        let plane = (image.width() * image.height()) as usize;
        assert_eq!(out.len(), 3 * plane, "out holds {} numbers, the image needs {}", out.len(), 3 * plane);
        // A channel has 256 values: a table is exact, and faster than two divisions per pixel.
        let table = |channel: usize| -> [f32; 256] {
            std::array::from_fn(|value| (value as f32 / 255.0 - self.mean[channel]) / self.std[channel])
        };
        let tables = [table(0), table(1), table(2)];
        let (red, rest) = out.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let planes = red.iter_mut().zip(green).zip(blue);
        for (((red, green), blue), pixel) in planes.zip(image.as_raw().as_chunks::<3>().0) {
            *red = tables[0][usize::from(pixel[0])];
            *green = tables[1][usize::from(pixel[1])];
            *blue = tables[2][usize::from(pixel[2])];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_normalized_and_split_by_channel() {
        let image = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8 * 50, y as u8 * 90, 200]));
        let mut out = vec![f32::NAN; 18];
        Normalize::CLIP.write(&image, &mut out);
        for (x, y, pixel) in image.enumerate_pixels() {
            for channel in 0..3 {
                let expected = (f32::from(pixel[channel]) / 255.0 - Normalize::CLIP.mean[channel])
                    / Normalize::CLIP.std[channel];
                assert_eq!(out[channel * 6 + y as usize * 3 + x as usize], expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "out holds 5 numbers, the image needs 12")]
    fn a_slice_of_the_wrong_size_panics() {
        Normalize::HALF.write(&RgbImage::new(2, 2), &mut [0.0; 5]);
    }
}
