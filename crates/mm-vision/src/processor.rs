//! The preprocessing of images for inference.

use crate::error::{Error, Result};
use crate::geometry::{Crop, Margins, Resize};
use image::{Rgb, RgbImage, imageops};
use mm_image::resize::{Filter, Rect};
use mm_image::{Normalize, Reduced, largest_divisor};
use rayon::prelude::*;
use std::borrow::Cow;
use tch::Tensor;

/// The largest side of an output, in pixels.
const MAX_SIDE: u32 = 1 << 12;

/// If an image is resized to more than this many times the pixels that the crop keeps, only these are
/// computed.
const MAX_EXCESS: u64 = 16;

/// Resizes, crops and normalizes images as a checkpoint's `preprocessor_config.json` or open_clip's
/// `preprocess_cfg` describes.
///
/// Pixels equal those of transformers' processors on Pillow (`CLIPImageProcessorPil`, ...) and of open_clip's
/// transforms within one level. transformers' default processors run on torchvision's tensors instead, with
/// other rounding in the resizing, and with an odd margin padded on the other side.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessor {
    pub(crate) resize: Option<Resize>,
    pub(crate) filter: Filter,
    pub(crate) crop: Option<Crop>,
    pub(crate) normalize: Normalize,
    pub(crate) output: (u32, u32),
}

impl ImageProcessor {
    pub(crate) fn new(
        resize: Option<Resize>,
        filter: Filter,
        crop: Option<Crop>,
        normalize: Normalize,
    ) -> Result<Self> {
        let output = match (resize, crop) {
            (_, Some(crop)) => (crop.width, crop.height),
            (Some(Resize::Exact(width, height)), None) => (width, height),
            _ => {
                let text = "images would differ in size: give crop_size, or a size with height and width";
                return Err(Error::Processor(text.into()));
            }
        };
        let resized = resize.map_or([output.0, output.1], Resize::sides);
        [output.0, output.1].into_iter().chain(resized).try_for_each(check_side)?;
        Ok(Self { resize, filter, crop, normalize, output })
    }

    /// OpenAI CLIP's: the short side to `size` (1 to 4,096, else the nearest of these), bicubic, and its
    /// middle square.
    pub fn default_clip(size: u32) -> Self {
        let size = size.clamp(1, MAX_SIDE);
        Self {
            resize: Some(Resize::ShortSide(size)),
            filter: Filter::Bicubic,
            crop: Some(Crop { width: size, height: size, fill: 0, margins: Margins::Transformers }),
            normalize: Normalize::CLIP,
            output: (size, size),
        }
    }

    /// SigLIP's: to `size` x `size` (1 to 4,096, else the nearest of these) whatever the ratio, bicubic, to
    /// the range -1 to 1.
    pub fn default_siglip(size: u32) -> Self {
        let size = size.clamp(1, MAX_SIDE);
        Self {
            resize: Some(Resize::Exact(size, size)),
            crop: None,
            normalize: Normalize::HALF,
            ..Self::default_clip(size)
        }
    }

    /// BLIP's: to `size` x `size` (1 to 4,096, else the nearest of these) whatever the ratio, bicubic, with
    /// CLIP's mean and standard deviation.
    pub fn default_blip(size: u32) -> Self {
        Self { normalize: Normalize::CLIP, ..Self::default_siglip(size) }
    }

    /// The same preprocessing to squares of `size` pixels a side: resizing and crop are scaled by one factor.
    ///
    /// # Errors
    /// A side is outside 1 to 4,096.
    pub fn with_size(self, size: u32) -> Result<Self> {
        check_side(size)?;
        let resize = self.resize.map(|resize| resize.scaled(self.output, size));
        let crop = self.crop.map(|crop| Crop { width: size, height: size, ..crop });
        Self::new(resize, self.filter, crop, self.normalize)
    }

    /// Width and height of the output, in pixels.
    pub fn output_size(&self) -> (u32, u32) {
        self.output
    }

    /// Mean and standard deviation of the normalization.
    pub fn normalize(&self) -> Normalize {
        self.normalize
    }

    /// Processes one image into `out`, `[3, H, W]` with H and W of [`ImageProcessor::output_size`].
    ///
    /// # Errors
    /// The image is empty.
    ///
    /// # Panics
    /// `out` has another length.
    pub fn process(&self, image: &RgbImage, out: &mut [f32]) -> Result<()> {
        self.normalize.write(&self.resize(image)?, out);
        Ok(())
    }

    /// Resizes and crops an image to [`ImageProcessor::output_size`], 8-bit;
    /// [`ImageProcessor::normalize_batch`] does the rest.
    ///
    /// # Errors
    /// The image is empty.
    pub fn resize(&self, image: &RgbImage) -> Result<RgbImage> {
        self.pixels(&Reduced::full_size(Cow::Borrowed(image)), 0)
    }

    /// The largest factor by which an image of `width` x `height` may be reduced while it is decoded
    /// ([`mm_image::decode_reduced`]), so that [`ImageProcessor::resize_reduced`] nearly equals
    /// [`ImageProcessor::resize`] of the full image.
    pub fn largest_divisor(&self, width: u32, height: u32) -> u32 {
        match self.resize {
            // A single pixel is no mean of others.
            Some(resize) if self.filter != Filter::Nearest => {
                largest_divisor((width, height), resize.size(width, height))
            }
            _ => 1,
        }
    }

    /// As [`ImageProcessor::resize`] of the full image, of an image that was reduced by at most
    /// [`ImageProcessor::largest_divisor`].
    ///
    /// # Errors
    /// The image is empty.
    pub fn resize_reduced(&self, image: &Reduced) -> Result<RgbImage> {
        self.pixels(image, 0)
    }

    /// Processes images in parallel to `pixel_values` `[B, 3, H, W]`.
    ///
    /// # Errors
    /// An image is empty.
    pub fn process_batch(&self, images: &[RgbImage]) -> Result<Tensor> {
        let resized = images
            .par_iter()
            .enumerate()
            .map(|(index, image)| self.pixels(&Reduced::full_size(Cow::Borrowed(image)), index));
        self.normalize_batch(&resized.collect::<Result<Vec<_>>>()?)
    }

    /// Normalizes images of [`ImageProcessor::output_size`] in parallel to `pixel_values` `[B, 3, H, W]`,
    /// with one allocation a batch.
    ///
    /// # Errors
    /// An image has another size.
    pub fn normalize_batch(&self, images: &[RgbImage]) -> Result<Tensor> {
        let (width, height) = self.output;
        if let Some(other) = images.iter().find(|image| image.dimensions() != self.output) {
            let (w, h) = other.dimensions();
            return Err(Error::Processor(format!(
                "an image of {w} x {h} pixels among those of {width} x {height}"
            )));
        }
        let length = 3 * width as usize * height as usize;
        Ok(mm_sys::filled(&[images.len() as i64, 3, height.into(), width.into()], |batch| {
            let outputs = batch.par_chunks_exact_mut(length).zip(images);
            outputs.for_each(|(out, image)| self.normalize.write(image, out));
        }))
    }

    /// Resizes, crops and pads.
    fn pixels(&self, image: &Reduced, index: usize) -> Result<RgbImage> {
        let (width, height) = (image.width, image.height);
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { index, width, height });
        }
        let resized = self.resize.map_or((width, height), |resize| resize.size(width, height));
        let Some(crop) = self.crop else { return Ok(image.exact(resized.0, resized.1, self.filter)) };
        let (kept, (left, top)) = crop.keep(resized.0, resized.1);
        let cut = |image: &RgbImage| {
            imageops::crop_imm(image, kept.left, kept.top, kept.width, kept.height).to_image()
        };
        let cut = match self.resize {
            None => cut(&image.pixels),
            Some(_) if exceeds(resized, kept) => image.exact_part(resized.0, resized.1, kept, self.filter),
            Some(_) => cut(&image.exact(resized.0, resized.1, self.filter)),
        };
        if cut.dimensions() == self.output {
            return Ok(cut);
        }
        let mut out = RgbImage::from_pixel(self.output.0, self.output.1, Rgb([crop.fill; 3]));
        imageops::replace(&mut out, &cut, left.into(), top.into());
        Ok(out)
    }
}

fn check_side(side: u32) -> Result<()> {
    if (1..=MAX_SIDE).contains(&side) {
        Ok(())
    } else {
        Err(Error::Processor(format!("a side of {side} pixels: it must be from 1 to {MAX_SIDE}")))
    }
}

/// Whether the resized image is so much larger than the crop that only the crop should be computed.
fn exceeds((width, height): (u32, u32), kept: Rect) -> bool {
    let pixels = |width: u32, height: u32| u64::from(width) * u64::from(height);
    pixels(width, height) / pixels(kept.width, kept.height) > MAX_EXCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(width: u32, height: u32) -> Option<Crop> {
        Some(Crop { width, height, fill: 0, margins: Margins::Transformers })
    }

    #[test]
    fn another_size_scales_resize_and_crop_alike() {
        let new = |resize, crop| {
            ImageProcessor::new(Some(resize), Filter::Bilinear, crop, Normalize::HALF).unwrap()
        };
        let larger = new(Resize::ShortSide(256), crop(224, 224)).with_size(336).unwrap();
        assert_eq!(larger, new(Resize::ShortSide(384), crop(336, 336)));
        let squashed = new(Resize::Exact(40, 30), None).with_size(60).unwrap();
        assert_eq!(squashed, new(Resize::Exact(60, 60), None));
        let within = new(Resize::Within(40, 20), crop(40, 20)).with_size(20).unwrap();
        assert_eq!(within, new(Resize::Within(20, 20), crop(20, 20)));
        assert_eq!(
            ImageProcessor::default_clip(224).with_size(64).unwrap(),
            ImageProcessor::default_clip(64)
        );
        for size in [0, 4097, u32::MAX] {
            let error = ImageProcessor::default_siglip(64).with_size(size).unwrap_err().to_string();
            assert!(error.contains(&format!("a side of {size} pixels")), "{error}");
        }
    }

    #[test]
    fn extreme_images_are_processed_or_refused_but_never_panic() {
        let processor = ImageProcessor::default_clip(32);
        assert!(processor.process_batch(&[RgbImage::new(2, 100_000), RgbImage::new(1, 1)]).is_ok());
        let error = processor.process_batch(&[RgbImage::new(4, 4), RgbImage::new(0, 3)]).unwrap_err();
        assert!(error.to_string().starts_with("image 1 of the batch is 0 x 3 pixels"));
        assert_eq!(processor.process_batch(&[]).unwrap().size(), [0, 3, 32, 32]);
    }

    #[test]
    fn an_image_is_reduced_where_twice_the_result_remains_and_its_pixels_are_means() {
        let clip = ImageProcessor::default_clip(224);
        assert_eq!(
            [(4000, 3000), (640, 480), (448, 9000)].map(|(w, h)| clip.largest_divisor(w, h)),
            [6, 1, 1]
        );
        let nearest = ImageProcessor { filter: Filter::Nearest, ..clip.clone() };
        assert_eq!(nearest.largest_divisor(4000, 3000), 1);
        let uncut = ImageProcessor { resize: None, ..clip };
        assert_eq!(uncut.largest_divisor(4000, 3000), 1);
        let processor = ImageProcessor::default_clip(32);
        let wave = |at: u32| (127.5 + 100.0 * (f64::from(at) / 30.0).sin()) as u8;
        let image = RgbImage::from_fn(401, 303, |x, y| Rgb([wave(x), wave(y), wave(x + y)]));
        let half = RgbImage::from_fn(201, 152, |x, y| image[((2 * x).min(400), (2 * y).min(302))]);
        let reduced = Reduced { pixels: Cow::Owned(half), divisor: 2, width: 401, height: 303 };
        let (found, expected) =
            (processor.resize_reduced(&reduced).unwrap(), processor.resize(&image).unwrap());
        let apart = std::iter::zip(found.as_raw(), expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        // half a pixel of the whole: the left upper of four was taken
        assert!(apart <= Some(4), "{apart:?} levels apart");
    }

    #[test]
    fn a_long_image_is_resized_where_it_is_kept_and_equals_the_whole() {
        let image = RgbImage::from_fn(800, 20, |x, y| Rgb([(x % 250) as u8, (7 * y) as u8, (x / 4) as u8]));
        let processor = ImageProcessor::default_clip(32);
        let whole = mm_image::resize::exact(&image, 1280, 32, Filter::Bicubic);
        let expected = imageops::crop_imm(&whole, 624, 0, 32, 32).to_image();
        let found = processor.resize(&image).unwrap();
        let apart = std::iter::zip(found.as_raw(), expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(apart <= Some(1), "{apart:?} levels apart");
    }
}
