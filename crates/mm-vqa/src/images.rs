//! Images as the models read them.

use crate::Result;
use mm_core::upload;
use mm_image::{Reduced, RgbImage};
use mm_vision::{ImageProcessor, PaddedImages, ViltProcessor};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// The preprocessing of images.
#[derive(Clone, Debug, PartialEq)]
pub enum VqaProcessor {
    /// To one size for all images.
    Fixed(ImageProcessor),
    /// To sizes that keep the aspect ratio, padded in a batch.
    Padded(ViltProcessor),
}

/// A batch of G images.
#[derive(Debug)]
pub enum ImageBatch {
    /// Of one size, `[G, 3, H, W]`.
    Fixed(Tensor),
    /// Of several sizes.
    Padded(PaddedImages),
}

impl VqaProcessor {
    /// Resizes an image, 8-bit.
    ///
    /// # Errors
    /// The image is empty.
    pub fn resize(&self, image: &RgbImage) -> Result<RgbImage> {
        Ok(match self {
            Self::Fixed(processor) => processor.resize(image)?,
            Self::Padded(processor) => processor.resize(image)?,
        })
    }

    /// As [`VqaProcessor::resize`], of an image that was decoded at a part of its size.
    ///
    /// # Errors
    /// As [`VqaProcessor::resize`].
    pub fn resize_reduced(&self, image: &Reduced) -> Result<RgbImage> {
        Ok(match self {
            Self::Fixed(processor) => processor.resize_reduced(image)?,
            Self::Padded(processor) => processor.resize(&image.pixels)?,
        })
    }

    /// By how much an image of `width` x `height` may be reduced in decoding: see
    /// [`ImageProcessor::largest_divisor`]. Images whose size depends on their own are decoded whole.
    pub fn largest_divisor(&self, width: u32, height: u32) -> u32 {
        match self {
            Self::Fixed(processor) => processor.largest_divisor(width, height),
            Self::Padded(_) => 1,
        }
    }

    /// A batch of images already resized.
    ///
    /// # Errors
    /// The images differ in size where they must not.
    pub fn normalize_batch(&self, images: &[RgbImage]) -> Result<ImageBatch> {
        Ok(match self {
            Self::Fixed(processor) => ImageBatch::Fixed(processor.normalize_batch(images)?),
            Self::Padded(processor) => ImageBatch::Padded(processor.normalize_batch(images)),
        })
    }

    /// One image of the mean color, in the place of an image that a model must not see.
    pub fn blank(&self) -> ImageBatch {
        let zeros = |height: u32, width: u32| {
            Tensor::zeros([1, 3, i64::from(height), i64::from(width)], (Kind::Float, Device::Cpu))
        };
        match self {
            Self::Fixed(processor) => {
                let (width, height) = processor.output_size();
                ImageBatch::Fixed(zeros(height, width))
            }
            Self::Padded(processor) => {
                let (width, height) = processor.size(1, 1);
                let sizes = vec![(i64::from(height), i64::from(width))];
                ImageBatch::Padded(PaddedImages { pixel_values: zeros(height, width), sizes })
            }
        }
    }

    /// The `preprocessor_config.json` that transformers reads.
    ///
    /// # Errors
    /// As [`ImageProcessor::to_json`].
    pub fn to_json(&self) -> Result<Value> {
        Ok(match self {
            Self::Fixed(processor) => processor.to_json()?,
            Self::Padded(processor) => processor.to_json(),
        })
    }
}

impl std::fmt::Display for VqaProcessor {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(processor) => processor.fmt(to),
            Self::Padded(processor) => {
                let divisor = processor.size_divisor();
                write!(to, "the aspect ratio is kept, sides are multiples of {divisor} pixels")
            }
        }
    }
}

impl ImageBatch {
    /// The pixels, `[G, 3, H, W]`.
    pub fn pixel_values(&self) -> &Tensor {
        match self {
            Self::Fixed(pixel_values) | Self::Padded(PaddedImages { pixel_values, .. }) => pixel_values,
        }
    }

    /// The same batch on `device`.
    pub fn to_device(&self, device: Device) -> Self {
        self.with_pixels(upload(self.pixel_values(), device))
    }

    /// As many images of the mean color, of the same sizes.
    pub fn blanked(&self) -> Self {
        self.with_pixels(self.pixel_values().zeros_like())
    }

    fn with_pixels(&self, pixel_values: Tensor) -> Self {
        match self {
            Self::Fixed(_) => Self::Fixed(pixel_values),
            Self::Padded(PaddedImages { sizes, .. }) => {
                Self::Padded(PaddedImages { pixel_values, sizes: sizes.clone() })
            }
        }
    }
}
