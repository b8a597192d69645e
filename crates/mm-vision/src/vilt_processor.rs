//! The preprocessing of ViLT, whose images keep their aspect ratio and differ in size.

use crate::channels::{Normalization, PER_LEVEL, shortest};
use crate::error::{Error, Result};
use crate::preprocessor_config::{RESAMPLE, image_processor_config};
use image::RgbImage;
use mm_image::resize::Filter;
use mm_image::{Normalize, resize};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// The long side over the short one, at most: that of COCO's images as detectors resize them.
const MAX_RATIO: f64 = 1333.0 / 800.0;

/// The largest short side, in pixels.
const MAX_SIDE: u32 = 1 << 12;

/// Resizes and normalizes images as transformers' `ViltImageProcessor` on Pillow does
/// (`ViltImageProcessorPil`), within one level of its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct ViltProcessor {
    shortest_edge: u32,
    size_divisor: u32,
    filter: Filter,
    normalize: Normalize,
}

/// Images of several sizes as one batch.
#[derive(Debug)]
pub struct PaddedImages {
    /// `[B, 3, H, W]` for the largest height and width of the batch. Images are in the top left corner;
    /// beside and below them are zeros.
    pub pixel_values: Tensor,
    /// Height and width of each image without the padding, in pixels.
    pub sizes: Vec<(i64, i64)>,
}

/// The keys of a file that are used. `do_pad` is not: a batch here is always padded.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ViltPreprocessorConfig {
    do_resize: Option<bool>,
    size: Option<Value>,
    size_divisor: Option<u32>,
    resample: Option<usize>,
    #[serde(flatten)]
    normalization: Normalization,
}

impl ViltProcessor {
    /// Published ViLTs': the short side to `shortest_edge` (384 there; from 1 to 4,096, else the nearest of
    /// these), sides that are multiples of `size_divisor` (32, the side of a patch; at least 1), bicubic, to
    /// the range -1 to 1.
    pub fn new(shortest_edge: u32, size_divisor: u32) -> Self {
        Self {
            shortest_edge: shortest_edge.clamp(1, MAX_SIDE),
            size_divisor: size_divisor.clamp(1, MAX_SIDE),
            filter: Filter::Bicubic,
            normalize: Normalize::HALF,
        }
    }

    /// Width and height of a resized image of `width` x `height`: the short side becomes `shortest_edge`, or
    /// less where the long side would exceed 1333/800 of it; then both are rounded down to multiples of
    /// `size_divisor`. An image so long that its short side would be nothing, which transformers refuses,
    /// gets one `size_divisor`.
    pub fn size(&self, width: u32, height: u32) -> (u32, u32) {
        let (w, h) = (f64::from(width), f64::from(height));
        let short = f64::from(self.shortest_edge);
        // The order of operations is that of the peer, because near a whole number rounding errors decide.
        let most = (MAX_RATIO * short).floor();
        let scale = short / w.min(h);
        let (mut new_width, mut new_height) = if h < w { (scale * w, short) } else { (short, scale * h) };
        if new_width.max(new_height) > most {
            let scale = most / new_width.max(new_height);
            (new_width, new_height) = (scale * new_width, scale * new_height);
        }
        let multiple = |side: f64| {
            let side = (side + 0.5) as u32;
            (side / self.size_divisor).max(1) * self.size_divisor
        };
        (multiple(new_width), multiple(new_height))
    }

    /// The side that both sides of a resized image are multiples of, in pixels.
    pub fn size_divisor(&self) -> u32 {
        self.size_divisor
    }

    /// Mean and standard deviation of the normalization.
    pub fn normalize(&self) -> Normalize {
        self.normalize
    }

    /// Resizes an image to [`ViltProcessor::size`], 8-bit.
    ///
    /// # Errors
    /// The image is empty.
    pub fn resize(&self, image: &RgbImage) -> Result<RgbImage> {
        self.resize_one(image, 0)
    }

    /// Resizes images in parallel and makes a batch of them.
    ///
    /// # Errors
    /// An image is empty.
    pub fn process_batch(&self, images: &[RgbImage]) -> Result<PaddedImages> {
        let resized = images.par_iter().enumerate().map(|(index, image)| self.resize_one(image, index));
        Ok(self.normalize_batch(&resized.collect::<Result<Vec<_>>>()?))
    }

    /// A batch of images already resized.
    pub fn normalize_batch(&self, images: &[RgbImage]) -> PaddedImages {
        let side = |of: fn(&RgbImage) -> u32| images.iter().map(of).max().unwrap_or(0).into();
        let (width, height): (i64, i64) = (side(RgbImage::width), side(RgbImage::height));
        let shape = [images.len() as i64, 3, height, width];
        let pixel_values = Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
        let normalized: Vec<Vec<f32>> = images
            .par_iter()
            .map(|image| {
                let mut values = vec![0.0; 3 * image.width() as usize * image.height() as usize];
                self.normalize.write(image, &mut values);
                values
            })
            .collect();
        let sizes: Vec<(i64, i64)> =
            images.iter().map(|image| (image.height().into(), image.width().into())).collect();
        for (index, (values, &(height, width))) in (0..).zip(normalized.iter().zip(&sizes)) {
            let image = Tensor::from_slice(values).view([3, height, width]);
            pixel_values.get(index).narrow(1, 0, height).narrow(2, 0, width).copy_(&image);
        }
        PaddedImages { pixel_values, sizes }
    }

    fn resize_one(&self, image: &RgbImage, index: usize) -> Result<RgbImage> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { index, width, height });
        }
        let (to_width, to_height) = self.size(width, height);
        Ok(resize::exact(image, to_width, to_height, self.filter))
    }

    /// Reads the preprocessing of the model in `folder`, and returns the file that it is from, as
    /// [`ImageProcessor::from_folder`](crate::ImageProcessor::from_folder) does.
    ///
    /// # Errors
    /// The folder has no such file, or as [`ViltProcessor::from_json`].
    pub fn from_folder(folder: &Path) -> Result<(PathBuf, Self)> {
        let (file, config) = image_processor_config(folder)?;
        match Self::from_json(&config) {
            Ok(processor) => Ok((file, processor)),
            Err(Error::Processor(text)) => Err(Error::Processor(format!("{}: {text}", file.display()))),
            Err(error) => Err(error),
        }
    }

    /// Reads a `preprocessor_config.json` of the class `ViltImageProcessor`; absent and null keys have its
    /// defaults.
    ///
    /// # Errors
    /// The JSON is no such object, is of another class, or needs what is not supported: no resizing.
    pub fn from_json(config: &Value) -> Result<Self> {
        let wrong = |problem: String| Error::Processor(problem);
        for name in ["image_processor_type", "feature_extractor_type"] {
            match config[name].as_str() {
                Some(class) if !class.starts_with("Vilt") => {
                    return Err(wrong(format!("{name} is {class}: it must be ViltImageProcessor")));
                }
                _ => {}
            }
        }
        if !config.is_object() {
            return Err(wrong(format!("{config} is no object"))); // serde would take a list for one
        }
        let config = ViltPreprocessorConfig::deserialize(config).map_err(|error| wrong(error.to_string()))?;
        if config.do_resize == Some(false) {
            return Err(wrong("do_resize is false: images are resized to whole patches".to_owned()));
        }
        let size = config.size.unwrap_or_else(|| 384.into());
        let shortest_edge = size.as_u64().or_else(|| size["shortest_edge"].as_u64());
        let size_divisor = config.size_divisor.unwrap_or(32);
        let sides = (shortest_edge.and_then(|side| u32::try_from(side).ok()), size_divisor);
        let (Some(shortest_edge @ 1..=MAX_SIDE), 1..=MAX_SIDE) = sides else {
            return Err(wrong(format!(
                "size is {size} and size_divisor {size_divisor}: expected shortest_edge and a divisor from 1 \
                 to {MAX_SIDE}"
            )));
        };
        let number = config.resample.unwrap_or(3);
        let filter =
            RESAMPLE.get(number).ok_or_else(|| wrong(format!("resample is {number}: it must be 0 to 5")))?;
        let normalize = config.normalization.or_default(Normalize::HALF)?;
        Ok(Self { shortest_edge, size_divisor, filter: *filter, normalize })
    }

    /// The `preprocessor_config.json` that transformers reads.
    pub fn to_json(&self) -> Value {
        json!({
            "image_processor_type": "ViltImageProcessor",
            "do_resize": true,
            "size": { "shortest_edge": self.shortest_edge },
            "size_divisor": self.size_divisor,
            "resample": RESAMPLE.iter().position(|filter| *filter == self.filter),
            "do_rescale": true,
            "rescale_factor": PER_LEVEL,
            "do_normalize": true,
            "image_mean": self.normalize.mean.map(shortest),
            "image_std": self.normalize.std.map(shortest),
            "do_pad": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn sizes_are_multiples_within_the_long_side_of_639_pixels() {
        let processor = ViltProcessor::new(384, 32);
        for (from, to) in [
            ((640, 480), (512, 384)),
            ((1333, 800), (608, 352)), // 639, not 640, which is a multiple of 32
            ((480, 640), (384, 512)),
            ((384, 384), (384, 384)),
            ((1, 1000), (32, 608)),
        ] {
            assert_eq!(processor.size(from.0, from.1), to, "{from:?}");
        }
    }

    #[test]
    fn a_batch_is_padded_on_the_right_and_below_with_zeros() {
        let processor = ViltProcessor::new(16, 8);
        let images = [RgbImage::from_pixel(24, 16, Rgb([255; 3])), RgbImage::from_pixel(16, 24, Rgb([0; 3]))];
        let PaddedImages { pixel_values, sizes } = processor.process_batch(&images).unwrap();
        assert_eq!((pixel_values.size(), sizes), (vec![2, 3, 24, 24], vec![(16, 24), (24, 16)]));
        let value = |image, y, x| pixel_values.double_value(&[image, 0, y, x]);
        assert_eq!(
            [value(0, 15, 23), value(0, 16, 0), value(1, 23, 15), value(1, 0, 16)],
            [1.0, 0.0, -1.0, 0.0]
        );
        assert_eq!(processor.process_batch(&[]).unwrap().pixel_values.size(), [0, 3, 0, 0]);
        let error = processor.process_batch(&[RgbImage::new(3, 0)]).unwrap_err().to_string();
        assert!(error.contains("image 0 of the batch is 3 x 0 pixels"), "{error}");
    }

    #[test]
    fn what_is_written_reads_back_the_same_and_what_is_not_offered_is_refused() {
        let processor = ViltProcessor { filter: Filter::Bilinear, ..ViltProcessor::new(40, 8) };
        assert_eq!(ViltProcessor::from_json(&processor.to_json()).unwrap(), processor);
        assert_eq!(ViltProcessor::from_json(&json!({"size": 384})).unwrap(), ViltProcessor::new(384, 32));
        for (config, expected) in [
            (json!({"image_processor_type": "CLIPImageProcessor"}), "it must be ViltImageProcessor"),
            (json!({"do_resize": false}), "do_resize is false"),
            (json!({"size": {"height": 4}}), "size is {\"height\":4}"),
            (json!({"size_divisor": 0}), "size_divisor 0"),
            (json!({"resample": 9}), "resample is 9"),
            (json!([]), "is no object"),
        ] {
            let error = ViltProcessor::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
