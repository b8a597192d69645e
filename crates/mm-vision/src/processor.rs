use crate::error::{Error, Result};
use crate::preprocessor_config::{PreprocessorConfig, to_json};
use image::{RgbImage, imageops};
use mm_data::Normalize;
use mm_data::resize::{Filter, exact, short_side_size};
use rayon::prelude::*;
use std::borrow::Cow;
use std::path::Path;
use tch::Tensor;

/// The largest side of an output, in pixels.
const MAX_SIDE: u32 = 1 << 12;

/// An image more than this many times as long as wide loses its ends before it is resized, which would need memory for pixels
/// that the crop drops.
const MAX_RATIO: u32 = 16;

/// What an image is resized to before the crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resize {
    /// The short side to this many pixels; the ratio stays.
    ShortSide(u32),
    /// To width and height, whatever the ratio becomes.
    Exact(u32, u32),
}

/// Resizes, crops and normalises images, as the `preprocessor_config.json` beside a checkpoint says.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessor {
    pub(crate) resize: Option<Resize>,
    pub(crate) crop: Option<(u32, u32)>,
    pub(crate) normalize: Normalize,
    output: (u32, u32),
}

impl ImageProcessor {
    pub(crate) fn new(resize: Option<Resize>, crop: Option<(u32, u32)>, normalize: Normalize) -> Result<Self> {
        let output = match (resize, crop) {
            (_, Some(size)) => size,
            (Some(Resize::Exact(width, height)), None) => (width, height),
            _ => {
                let text = "images would differ in size: give crop_size, or a size with height and width";
                return Err(Error::Processor(text.into()));
            }
        };
        let resized = match resize {
            Some(Resize::ShortSide(side)) => (side, side),
            Some(Resize::Exact(width, height)) => (width, height),
            None => output,
        };
        for side in [output.0, output.1, resized.0, resized.1] {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(Error::Processor(format!("a side of {side} pixels: it must be from 1 to {MAX_SIDE}")));
            }
        }
        Ok(Self { resize, crop, normalize, output })
    }

    /// OpenAI CLIP's: the short side to `size` (1 to 4,096, else the nearest of these), bicubic, and its middle square.
    pub fn default_clip(size: u32) -> Self {
        let size = size.clamp(1, MAX_SIDE);
        Self {
            resize: Some(Resize::ShortSide(size)),
            crop: Some((size, size)),
            normalize: Normalize::CLIP,
            output: (size, size),
        }
    }

    /// SigLIP's: to `size` x `size` (1 to 4,096, else the nearest of these) whatever the ratio, bicubic, to the range -1 to 1.
    pub fn default_siglip(size: u32) -> Self {
        let size = size.clamp(1, MAX_SIDE);
        Self {
            resize: Some(Resize::Exact(size, size)),
            crop: None,
            normalize: Normalize::HALF,
            ..Self::default_clip(size)
        }
    }

    /// Reads a `preprocessor_config.json`.
    ///
    /// # Errors
    /// The file cannot be read, is no JSON of this form, or asks for what is not offered: another `resample` than 3 (bicubic), or
    /// outputs that differ in size.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let config: PreprocessorConfig =
            serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        config.processor().map_err(|error| match error {
            Error::Processor(text) => Error::Processor(format!("{}: {text}", path.display())),
            other => other,
        })
    }

    /// Writes a `preprocessor_config.json` that transformers reads as a `CLIPImageProcessor`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, format!("{:#}\n", to_json(self)))
            .map_err(|source| Error::Io { path: path.to_owned(), source })
    }

    /// Width and height of the output, in pixels.
    pub fn output_size(&self) -> (u32, u32) {
        self.output
    }

    /// Mean and standard deviation that the output is normalised by.
    pub fn normalize(&self) -> Normalize {
        self.normalize
    }

    /// Processes one image into `out`, `[3, H, W]` numbers of [`ImageProcessor::output_size`].
    ///
    /// # Errors
    /// The image has no pixels.
    ///
    /// # Panics
    /// `out` has another length.
    pub fn process(&self, image: &RgbImage, out: &mut [f32]) -> Result<()> {
        self.normalize.write(&self.pixels(image, 0)?, out);
        Ok(())
    }

    /// Resizes and crops an image to [`ImageProcessor::output_size`], 8-bit; [`ImageProcessor::normalize_batch`] does the rest.
    ///
    /// # Errors
    /// The image has no pixels.
    pub fn resize(&self, image: &RgbImage) -> Result<RgbImage> {
        self.pixels(image, 0)
    }

    /// Processes images in parallel to `pixel_values` `[B, 3, H, W]`.
    ///
    /// # Errors
    /// An image has no pixels.
    pub fn process_batch(&self, images: &[RgbImage]) -> Result<Tensor> {
        let resized = images.par_iter().enumerate().map(|(index, image)| self.pixels(image, index));
        self.normalize_batch(&resized.collect::<Result<Vec<_>>>()?)
    }

    /// Normalises images of [`ImageProcessor::output_size`] in parallel to `pixel_values` `[B, 3, H, W]`, one allocation a batch.
    ///
    /// # Errors
    /// An image has another size.
    pub fn normalize_batch(&self, images: &[RgbImage]) -> Result<Tensor> {
        let (width, height) = self.output;
        if let Some(other) = images.iter().find(|image| image.dimensions() != self.output) {
            let (w, h) = other.dimensions();
            return Err(Error::Processor(format!("an image of {w} x {h} pixels among those of {width} x {height}")));
        }
        let length = 3 * width as usize * height as usize;
        Ok(mm_sys::filled(&[images.len() as i64, 3, height.into(), width.into()], |batch| {
            let outputs = batch.par_chunks_exact_mut(length).zip(images);
            outputs.for_each(|(out, image)| self.normalize.write(image, out));
        }))
    }

    /// Resizes, crops and pads.
    fn pixels(&self, image: &RgbImage, index: usize) -> Result<RgbImage> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { index, width, height });
        }
        let resized = match self.resize {
            Some(Resize::ShortSide(side)) => {
                let image = without_far_ends(image);
                let (width, height) = short_side_size(image.width(), image.height(), side);
                Cow::Owned(exact(&image, width, height, Filter::Bicubic))
            }
            Some(Resize::Exact(width, height)) => Cow::Owned(exact(image, width, height, Filter::Bicubic)),
            None => Cow::Borrowed(image),
        };
        let (left, width) = kept(resized.width(), self.output.0);
        let (top, height) = kept(resized.height(), self.output.1);
        let cut = imageops::crop_imm(resized.as_ref(), left, top, width, height);
        let mut out = RgbImage::new(self.output.0, self.output.1);
        let (left, top) = ((self.output.0 - width) / 2, (self.output.1 - height) / 2);
        imageops::replace(&mut out, &*cut, left.into(), top.into());
        Ok(out)
    }
}

/// Where the middle `size` of `side` begins and how much of it there is; the odd pixel goes to the end, as in transformers.
fn kept(side: u32, size: u32) -> (u32, u32) {
    (side.saturating_sub(size) / 2, side.min(size))
}

/// The middle of an image that exceeds [`MAX_RATIO`].
fn without_far_ends(image: &RgbImage) -> Cow<'_, RgbImage> {
    let (width, height) = image.dimensions();
    let longest = width.min(height).saturating_mul(MAX_RATIO);
    if width.max(height) <= longest {
        return Cow::Borrowed(image);
    }
    let (left, width) = kept(width, longest);
    let (top, height) = kept(height, longest);
    Cow::Owned(imageops::crop_imm(image, left, top, width, height).to_image())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ImageProcessor> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocessor_config.json");
        std::fs::write(&path, json).unwrap();
        ImageProcessor::from_file(&path)
    }

    #[test]
    fn old_and_new_ways_of_writing_a_size_are_one() {
        let rest = r#""image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "feature_extractor_type": "X""#;
        let old = read(&format!(r#"{{"size": 32, "crop_size": 30, {rest}}}"#)).unwrap();
        let sizes = r#""size": {"shortest_edge": 32}, "crop_size": {"height": 30, "width": 30}"#;
        assert_eq!(old, read(&format!("{{{sizes}, {rest}}}")).unwrap());
        let square = read(&format!(r#"{{"size": 32, {rest}}}"#)).unwrap();
        assert_eq!(square, read(&format!(r#"{{"size": {{"height": 32, "width": 32}}, {rest}}}"#)).unwrap());
    }

    #[test]
    fn a_saved_processor_reads_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocessor_config.json");
        let exact = ImageProcessor::new(Some(Resize::Exact(40, 30)), None, Normalize::HALF).unwrap();
        for processor in [ImageProcessor::default_clip(224), exact] {
            processor.save(&path).unwrap();
            assert_eq!(ImageProcessor::from_file(&path).unwrap(), processor);
        }
    }

    #[test]
    fn what_cannot_be_followed_is_an_error_that_says_why() {
        let cases = [
            (r#"{"size": 32, "crop_size": 32, "do_normalize": false, "resample": 1}"#, "resample is 1"),
            (r#"{"size": {"shortest_edge": 32}, "do_normalize": false}"#, "differ in size"),
            (r#"{"size": 32, "crop_size": 32}"#, "image_mean"),
            (r#"{"crop_size": 32, "do_normalize": false}"#, "without size"),
            (r#"{"size": 32, "do_center_crop": true, "do_normalize": false}"#, "without crop_size"),
            (r#"{"size": 0, "crop_size": 32, "do_normalize": false}"#, "a side of 0 pixels"),
            (r#"{"size": 32, "do_normalize": false, "rescale_factor": 0}"#, "rescale_factor is 0"),
            (r#"{"size": 32, "image_mean": [0, 0, 0], "image_std": [1, 0, 1]}"#, "image_std"),
            ("{", "line 1"),
        ];
        for (json, expected) in cases {
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("preprocessor_config.json"), "{message}");
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
}
