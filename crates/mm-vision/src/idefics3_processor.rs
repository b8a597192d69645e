//! The preprocessing of Idefics3 and SmolVLM, which cut large images into square tiles.

use crate::channels::{Normalization, PER_LEVEL, shortest};
use crate::error::{Error, Result};
use crate::preprocessor_config::{RESAMPLE, image_processor_config};
use image::{RgbImage, imageops};
use mm_image::resize::Filter;
use mm_image::{MAX_PIXELS, Normalize, resize};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The largest side of a resized image, in pixels.
const MAX_SIDE: u32 = 1 << 12;

/// The classes of transformers, before their ending.
const CLASSES: [&str; 2] = ["Idefics3ImageProcessor", "SmolVLMImageProcessor"];

/// Resizes, cuts and normalizes images as transformers' `Idefics3ImageProcessor` and `SmolVLMImageProcessor`
/// on Pillow do, within one level of their pixels.
///
/// An image is resized to `longest_edge`, up or down. With splitting it is resized again to whole tiles of
/// `tile` pixels a side, which are cut row by row, and the whole image follows as one tile more, whatever its
/// ratio; an image of one tile stays alone. Without splitting it becomes that one tile. So every tile is a
/// full square, and the padding and its mask that the peer's files mention never occur.
#[derive(Clone, Debug, PartialEq)]
pub struct Idefics3Processor {
    longest_edge: u32,
    tile: u32,
    splits: bool,
    filter: Filter,
    normalize: Normalize,
}

/// An image as square tiles.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageTiles {
    /// The tiles row by row, 8-bit, and the whole image after them; or that alone.
    pub tiles: Vec<RgbImage>,
    /// Rows of tiles; 0 for the whole image alone.
    pub rows: u32,
    /// Columns of tiles; 0 for the whole image alone.
    pub columns: u32,
}

/// The keys of a file that are used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Idefics3PreprocessorConfig {
    do_resize: Option<bool>,
    size: Option<Value>,
    max_image_size: Option<Value>,
    do_image_splitting: Option<bool>,
    resample: Option<usize>,
    #[serde(flatten)]
    normalization: Normalization,
}

impl Idefics3Processor {
    /// Published models': Lanczos, to the range -1 to 1. Sides are from 1 to 4,096, else the nearest of
    /// these.
    pub fn new(longest_edge: u32, tile: u32, splits: bool) -> Self {
        Self {
            longest_edge: longest_edge.clamp(1, MAX_SIDE),
            tile: tile.clamp(1, MAX_SIDE),
            splits,
            filter: Filter::Lanczos,
            normalize: Normalize::HALF,
        }
    }

    /// The side of a tile, in pixels.
    pub fn tile(&self) -> u32 {
        self.tile
    }

    /// Whether images are split.
    pub fn splits(&self) -> bool {
        self.splits
    }

    /// The same preprocessing with splitting on or off.
    pub fn with_splitting(self, splits: bool) -> Self {
        Self { splits, ..self }
    }

    /// Mean and standard deviation of the normalization.
    pub fn normalize(&self) -> Normalize {
        self.normalize
    }

    /// Rows and columns of tiles of an image of `width` x `height`; 0 and 0 for the whole image alone.
    pub fn grid(&self, width: u32, height: u32) -> (u32, u32) {
        let (width, height) = self.whole_tiles(self.resized(width, height));
        let grid = (height / self.tile, width / self.tile);
        if self.splits && grid != (1, 1) { grid } else { (0, 0) }
    }

    /// The tiles of an image.
    ///
    /// # Errors
    /// The image is empty, or has more than [`MAX_PIXELS`] pixels.
    pub fn tiles(&self, image: &RgbImage) -> Result<ImageTiles> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { index: 0, width, height });
        }
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            let text = format!("{width} x {height} is more than {MAX_PIXELS} pixels: scale the image down");
            return Err(Error::Processor(text));
        }
        let to =
            |image: &RgbImage, (width, height): (u32, u32)| resize::exact(image, width, height, self.filter);
        let size = self.resized(width, height);
        let (image, square) = (to(image, size), (self.tile, self.tile));
        let (rows, columns) = self.grid(width, height);
        if !self.splits {
            return Ok(ImageTiles { tiles: vec![to(&image, square)], rows, columns });
        }
        let image = to(&image, self.whole_tiles(size));
        let mut tiles = Vec::with_capacity((rows * columns + 1) as usize);
        for row in 0..rows {
            for column in 0..columns {
                let (left, top) = (column * self.tile, row * self.tile);
                tiles.push(imageops::crop_imm(&image, left, top, self.tile, self.tile).to_image());
            }
        }
        tiles.push(if rows == 0 { image } else { to(&image, square) });
        Ok(ImageTiles { tiles, rows, columns })
    }

    /// Normalizes tiles in parallel to `pixel_values` `[T, 3, tile, tile]`.
    ///
    /// # Errors
    /// A tile has another size.
    pub fn normalize_batch(&self, tiles: &[RgbImage]) -> Result<Tensor> {
        let side = self.tile;
        if let Some(other) = tiles.iter().find(|tile| tile.dimensions() != (side, side)) {
            let (width, height) = other.dimensions();
            let text = format!("a tile of {width} x {height} pixels among those of {side} x {side}");
            return Err(Error::Processor(text));
        }
        let length = 3 * side as usize * side as usize;
        Ok(mm_sys::filled(&[tiles.len() as i64, 3, side.into(), side.into()], |batch| {
            let outputs = batch.par_chunks_exact_mut(length).zip(tiles);
            outputs.for_each(|(out, tile)| self.normalize.write(tile, out));
        }))
    }

    /// Width and height with the long side resized to `longest_edge`. The short side is rounded down and then
    /// up to an even number. The order of operations is that of the peer.
    fn resized(&self, width: u32, height: u32) -> (u32, u32) {
        let ratio = f64::from(width) / f64::from(height);
        let long = self.longest_edge;
        let even = |side: f64| (side as u32).next_multiple_of(2).clamp(1, MAX_SIDE);
        if width >= height {
            (long, even(f64::from(long) / ratio))
        } else {
            (even(f64::from(long) * ratio), long)
        }
    }

    /// The smallest size of whole tiles that holds an image of `width` x `height` with about its ratio.
    fn whole_tiles(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let ratio = f64::from(width) / f64::from(height);
        let whole = |side: u32| side.max(1).next_multiple_of(self.tile);
        if width >= height {
            let width = whole(width);
            (width, whole((f64::from(width) / ratio) as u32))
        } else {
            let height = whole(height);
            (whole((f64::from(height) * ratio) as u32), height)
        }
    }

    /// Reads the preprocessing of the model in `folder`, and returns the file that it is from, as
    /// [`ImageProcessor::from_folder`](crate::ImageProcessor::from_folder) does.
    ///
    /// # Errors
    /// The folder has no such file, or as [`Idefics3Processor::from_json`].
    pub fn from_folder(folder: &Path) -> Result<(PathBuf, Self)> {
        let (file, config) = image_processor_config(folder)?;
        match Self::from_json(&config) {
            Ok(processor) => Ok((file, processor)),
            Err(Error::Processor(text)) => Err(Error::Processor(format!("{}: {text}", file.display()))),
            Err(error) => Err(error),
        }
    }

    /// Reads a `preprocessor_config.json` of the class `Idefics3ImageProcessor` or `SmolVLMImageProcessor`;
    /// absent and null keys have their defaults.
    ///
    /// # Errors
    /// The JSON is no such object, is of another class, or needs what is not supported: no resizing, or a
    /// size without `longest_edge`.
    pub fn from_json(config: &Value) -> Result<Self> {
        let wrong = |problem: String| Error::Processor(problem);
        if !config.is_object() {
            return Err(wrong(format!("{config} is no object"))); // serde would take a list for one
        }
        if let Some(class) = config["image_processor_type"].as_str()
            && !CLASSES.iter().any(|known| class.starts_with(known))
        {
            return Err(wrong(format!("image_processor_type is {class}: known are {}", CLASSES.join(", "))));
        }
        let config =
            Idefics3PreprocessorConfig::deserialize(config).map_err(|error| wrong(error.to_string()))?;
        if config.do_resize == Some(false) {
            return Err(wrong("do_resize is false: images are resized to whole tiles".to_owned()));
        }
        let longest_edge = side("size", &config.size, 4 * 364)?;
        let tile = side("max_image_size", &config.max_image_size, 364)?;
        let number = config.resample.unwrap_or(1);
        let filter =
            RESAMPLE.get(number).ok_or_else(|| wrong(format!("resample is {number}: it must be 0 to 5")))?;
        let normalize = config.normalization.or_default(Normalize::HALF)?;
        let splits = config.do_image_splitting.unwrap_or(true);
        Ok(Self { longest_edge, tile, splits, filter: *filter, normalize })
    }

    /// The `preprocessor_config.json` that transformers reads, of its `class`.
    pub fn to_json(&self, class: &str) -> Value {
        json!({
            "image_processor_type": class,
            "do_convert_rgb": true,
            "do_resize": true,
            "size": { "longest_edge": self.longest_edge },
            "resample": RESAMPLE.iter().position(|filter| *filter == self.filter),
            "do_image_splitting": self.splits,
            "max_image_size": { "longest_edge": self.tile },
            "do_rescale": true,
            "rescale_factor": PER_LEVEL,
            "do_normalize": true,
            "image_mean": self.normalize.mean.map(shortest),
            "image_std": self.normalize.std.map(shortest),
            "do_pad": true,
        })
    }
}

/// The `longest_edge` of `size`, the key `name` of a file.
fn side(name: &str, size: &Option<Value>, default: u32) -> Result<u32> {
    let Some(size) = size else { return Ok(default) };
    let side = size["longest_edge"].as_u64().and_then(|side| u32::try_from(side).ok());
    side.filter(|side| (1..=MAX_SIDE).contains(side)).ok_or_else(|| {
        Error::Processor(format!("{name} is {size}: expected longest_edge, from 1 to {MAX_SIDE}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_become_whole_tiles_and_the_image_itself() {
        let processor = Idefics3Processor::new(2048, 512, true);
        for ((width, height), expected) in [
            ((1600, 1200), (3, 4)),
            ((1200, 1600), (4, 3)),
            ((64, 64), (4, 4)),
            ((2000, 100), (1, 4)),
            ((1, 9000), (4, 1)),
        ] {
            assert_eq!(processor.grid(width, height), expected, "{width} x {height}");
        }
        assert_eq!(processor.with_splitting(false).grid(1600, 1200), (0, 0));
        assert_eq!(Idefics3Processor::new(512, 512, true).grid(300, 200), (0, 0));
    }

    #[test]
    fn every_tile_is_a_full_square() {
        let image = RgbImage::from_fn(50, 30, |x, y| image::Rgb([(5 * x) as u8, (8 * y) as u8, 7]));
        let split = Idefics3Processor::new(32, 16, true);
        let found = split.tiles(&image).unwrap();
        assert_eq!((found.rows, found.columns, found.tiles.len()), (2, 2, 5));
        assert!(found.tiles.iter().all(|tile| tile.dimensions() == (16, 16)));
        assert_eq!(split.normalize_batch(&found.tiles).unwrap().size(), [5, 3, 16, 16]);
        let alone = split.clone().with_splitting(false).tiles(&image).unwrap();
        assert_eq!((alone.rows, alone.columns, alone.tiles.len()), (0, 0, 1));
        let error = split.normalize_batch(&[image]).unwrap_err().to_string();
        assert!(error.contains("a tile of 50 x 30 pixels among those of 16 x 16"), "{error}");
    }

    #[test]
    fn an_empty_image_is_refused() {
        let error = Idefics3Processor::new(32, 16, true).tiles(&RgbImage::new(0, 4)).unwrap_err();
        assert!(error.to_string().contains("is 0 x 4 pixels"), "{error}");
    }

    #[test]
    fn what_is_written_reads_back_the_same_and_what_is_not_offered_is_refused() {
        let processor =
            Idefics3Processor { filter: Filter::Bicubic, ..Idefics3Processor::new(80, 40, false) };
        for class in CLASSES {
            assert_eq!(Idefics3Processor::from_json(&processor.to_json(class)).unwrap(), processor);
        }
        assert_eq!(
            Idefics3Processor::from_json(&json!({})).unwrap(),
            Idefics3Processor::new(1456, 364, true)
        );
        for (config, expected) in [
            (json!({"image_processor_type": "CLIPImageProcessor"}), "known are Idefics3ImageProcessor"),
            (json!({"do_resize": false}), "do_resize is false"),
            (json!({"size": {"height": 4, "width": 4}}), "size is {\"height\":4,\"width\":4}"),
            (json!({"max_image_size": {"longest_edge": 0}}), "max_image_size is {\"longest_edge\":0}"),
            (json!({"resample": 9}), "resample is 9"),
            (json!([]), "is no object"),
        ] {
            let error = Idefics3Processor::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
