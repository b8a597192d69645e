//! From images to tiles.

use crate::Result;
use mm_image::RgbImage;
use mm_image::image::{Rgb, imageops};
use mm_vision::{Error, Idefics3Processor, ImageProcessor, ImageTiles};
use serde_json::Value;
use tch::Tensor;

/// The preprocessing of a vision-language model's images.
#[derive(Clone, Debug, PartialEq)]
pub enum VlmImages {
    /// Idefics3's: an image is cut into tiles, or becomes one.
    Tiles(Idefics3Processor),
    /// LLaVA's: an image is one tile.
    Single {
        /// The resizing and cropping.
        processor: ImageProcessor,
        /// Whether images become squares before it, by a border of the mean color.
        pads: bool,
    },
}

/// transformers' class with a border around images.
const PADDING_CLASS: &str = "LlavaImageProcessor";

impl VlmImages {
    /// Reads LLaVA's preprocessing, whose class is CLIP's, SigLIP's or `LlavaImageProcessor`.
    ///
    /// # Errors
    /// As [`ImageProcessor::from_json`].
    pub(super) fn read_single(mut config: Value) -> mm_vision::Result<Self> {
        let class = config["image_processor_type"].as_str().unwrap_or("CLIPImageProcessor").to_owned();
        let is_own = class.starts_with(PADDING_CLASS);
        let pads = is_own && config["do_pad"] == true;
        if let Some(fields) = config.as_object_mut() {
            let class = if is_own { "CLIPImageProcessor".to_owned() } else { class };
            fields.insert("image_processor_type".to_owned(), class.into());
            if is_own {
                fields.remove("do_pad");
                fields.remove("pad_size");
            }
        }
        Ok(Self::Single { processor: ImageProcessor::from_json(&config)?, pads })
    }

    /// The `preprocessor_config.json` that transformers reads; `class` is that of processors of tiles.
    ///
    /// # Errors
    /// As [`ImageProcessor::to_json`].
    pub(super) fn to_json(&self, class: &str) -> mm_vision::Result<Value> {
        match self {
            Self::Tiles(processor) => Ok(processor.to_json(class)),
            Self::Single { processor, pads } => {
                let mut config = processor.to_json()?;
                if *pads {
                    config["image_processor_type"] = PADDING_CLASS.into();
                    config["do_pad"] = true.into();
                }
                Ok(config)
            }
        }
    }

    /// The side of a tile, in pixels; none if tiles are not square.
    pub fn side(&self) -> Option<i64> {
        match self {
            Self::Tiles(processor) => Some(processor.tile().into()),
            Self::Single { processor, .. } => {
                let (width, height) = processor.output_size();
                (width == height).then_some(width.into())
            }
        }
    }

    /// The tiles of an image, which is split if `splits` and if the family does so.
    ///
    /// # Errors
    /// The image is empty or has too many pixels.
    pub fn tiles(&self, image: &RgbImage, splits: bool) -> Result<ImageTiles> {
        match self {
            Self::Tiles(processor) => Ok(processor.clone().with_splitting(splits).tiles(image)?),
            Self::Single { processor, pads } => {
                let (width, height) = image.dimensions();
                if width == 0 || height == 0 {
                    return Err(Error::EmptyImage { index: 0, width, height }.into());
                }
                let tile = if *pads {
                    processor.resize(&padded(image, processor.normalize().mean))?
                } else {
                    processor.resize(image)?
                };
                Ok(ImageTiles { tiles: vec![tile], rows: 0, columns: 0 })
            }
        }
    }

    /// Normalizes tiles to `pixel_values` `[T, 3, side, side]`.
    ///
    /// # Errors
    /// A tile has another size.
    pub fn normalize_batch(&self, tiles: &[RgbImage]) -> Result<Tensor> {
        Ok(match self {
            Self::Tiles(processor) => processor.normalize_batch(tiles)?,
            Self::Single { processor, .. } => processor.normalize_batch(tiles)?,
        })
    }
}

/// `image` in the middle of a square of the color `mean`, in shares of the brightest.
fn padded(image: &RgbImage, mean: [f32; 3]) -> RgbImage {
    let (width, height) = image.dimensions();
    if width == height {
        return image.clone();
    }
    let side = width.max(height);
    let color = mean.map(|share| (f64::from(share) * 255.0) as u8);
    let mut square = RgbImage::from_pixel(side, side, Rgb(color));
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    imageops::replace(&mut square, image, left.into(), top.into());
    square
}
