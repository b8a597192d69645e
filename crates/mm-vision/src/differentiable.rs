//! The preprocessing of images as an operation on tensors, through which gradients flow.

use crate::ImageProcessor;
use crate::error::{Error, Result};
use mm_image::resize::Filter;
use tch::Tensor;

impl ImageProcessor {
    /// Processes `pixels` `[B, 3, H, W]`, f32 from 0 to 1 and of any size, to `pixel_values` on their device,
    /// with gradients to them: resized with antialiasing, clamped to 0 to 1, cropped, padded and normalized.
    ///
    /// It computes in f32 where [`ImageProcessor::process_batch`] rounds to 8 bits after each step, as Pillow
    /// does: after a resizing the two differ by a level of 255 or so, else by nothing.
    ///
    /// # Errors
    /// `pixels` has another shape or no pixels, or the filter is neither bilinear nor bicubic.
    pub fn process_pixels(&self, pixels: &Tensor) -> Result<Tensor> {
        let shape = pixels.size();
        let (channels, height, width) = match shape[..] {
            [_, channels, height, width] => (channels, height, width),
            _ => (0, 0, 0),
        };
        if channels != 3 || height < 1 || width < 1 {
            return Err(Error::Processor(format!(
                "pixels of shape {shape:?}: they must be [B, 3, H, W], of one pixel at least"
            )));
        }
        let (width, height) = (width as u32, height as u32);
        let resized = self.resize.map_or((width, height), |resize| resize.size(width, height));
        let mut x = self.resize_pixels(pixels, (width, height), resized)?;
        if let Some(crop) = self.crop {
            let (kept, (left, top)) = crop.keep(resized.0, resized.1);
            x = x.f_narrow(2, kept.top.into(), kept.height.into())?;
            x = x.f_narrow(3, kept.left.into(), kept.width.into())?;
            if (kept.width, kept.height) != self.output {
                let right = self.output.0 - kept.width - left;
                let bottom = self.output.1 - kept.height - top;
                let margins = [left, right, top, bottom].map(i64::from);
                x = x.f_pad(margins, "constant", f64::from(crop.fill) / 255.0)?;
            }
        }
        let normalize = self.normalize();
        let channels = |values: [f32; 3]| Tensor::from_slice(&values).view([3, 1, 1]).to_device(x.device());
        let (mean, std) = (channels(normalize.mean), channels(normalize.std));
        Ok(x.f_sub(&mean)?.f_div(&std)?)
    }

    /// Resizes `[B, 3, H, W]`, if the size changes.
    fn resize_pixels(&self, pixels: &Tensor, from: (u32, u32), to: (u32, u32)) -> Result<Tensor> {
        if from == to {
            return Ok(pixels.shallow_clone());
        }
        let size = [i64::from(to.1), i64::from(to.0)];
        let resized = match self.filter {
            Filter::Bilinear => pixels.f_internal_upsample_bilinear2d_aa(size, false, None, None)?,
            Filter::Bicubic => pixels.f_internal_upsample_bicubic2d_aa(size, false, None, None)?,
            other => {
                return Err(Error::Processor(format!(
                    "the filter {other:?} has no gradient here: bilinear and bicubic have"
                )));
            }
        };
        // A bicubic filter overshoots; 8 bits cannot.
        Ok(resized.f_clamp(0.0, 1.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_image::image::{Rgb, RgbImage};
    use tch::{Device, Kind};

    /// The images as `[B, 3, H, W]` from 0 to 1.
    fn pixels(image: &RgbImage) -> Tensor {
        let (width, height) = image.dimensions();
        let levels = Tensor::from_slice(image.as_raw()).view([1, height.into(), width.into(), 3]);
        levels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0
    }

    #[test]
    fn pixels_become_what_images_become_within_a_level_after_resizing_and_without_it_the_same() {
        let wave = |at: u32| (127.5 + 100.0 * (f64::from(at) / 7.0).sin()) as u8;
        let image =
            |width, height| RgbImage::from_fn(width, height, |x, y| Rgb([wave(x), wave(2 * y), wave(x + y)]));
        for (processor, (width, height), levels) in [
            (ImageProcessor::default_clip(32), (83, 60), 1.6),
            (ImageProcessor::default_clip(32), (20, 31), 1.6),
            (ImageProcessor::default_siglip(32), (83, 60), 1.6),
            (ImageProcessor::default_clip(32), (32, 32), 0.001),
            (ImageProcessor::default_clip(32), (32, 45), 0.001),
        ] {
            let image = image(width, height);
            let expected = processor.process_batch(std::slice::from_ref(&image)).unwrap();
            let found = processor.process_pixels(&pixels(&image)).unwrap();
            assert_eq!(found.size(), expected.size());
            let std = f64::from(processor.normalize().std.into_iter().fold(f32::MAX, f32::min));
            let apart = (found - expected).abs().max().double_value(&[]) * std * 255.0;
            assert!(apart <= levels, "{apart} levels at {width} x {height}");
        }
    }

    #[test]
    fn gradients_flow_to_the_kept_pixels_alone_and_wrong_shapes_are_refused() {
        let processor = ImageProcessor::default_clip(16);
        let pixels = Tensor::full([1, 3, 16, 24], 0.5, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        processor.process_pixels(&pixels).unwrap().sum(Kind::Float).backward();
        let gradient = pixels.grad();
        let nonzero = |left, columns| gradient.narrow(3, left, columns).count_nonzero(None).int64_value(&[]);
        assert_eq!((nonzero(0, 4), nonzero(4, 16), nonzero(20, 4)), (0, 3 * 16 * 16, 0));
        for shape in [vec![3, 16, 16], vec![1, 4, 16, 16], vec![1, 3, 0, 16]] {
            let zeros = Tensor::zeros(shape.as_slice(), (Kind::Float, Device::Cpu));
            let message = processor.process_pixels(&zeros).unwrap_err().to_string();
            assert!(message.contains("they must be [B, 3, H, W]"), "{message}");
        }
    }
}
