//! The preprocessing of Donut, whose pages keep their aspect ratio within a page of fixed size.

use crate::channels::{Normalization, PER_LEVEL, shortest};
use crate::error::{Error, Result};
use crate::preprocessor_config::{RESAMPLE, image_processor_config};
use image::{RgbImage, imageops};
use mm_image::resize::{Filter, short_side_size};
use mm_image::{Normalize, resize};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The largest side of the output, in pixels.
const MAX_SIDE: u32 = 1 << 13;

/// The most pixels of a page that is resized to the short side of the output: a strip of paper a thousand
/// times as long as wide would take gigabytes.
const MAX_PIXELS: u64 = 1 << 28;

/// transformers' mean and standard deviation where a file has none, those of ImageNet's standard.
const DEFAULT_NORMALIZE: Normalize = Normalize::HALF;

/// Resizes, pads and normalizes pages as transformers' `DonutImageProcessor` on Pillow does
/// (`DonutImageProcessorPil`), within one level of its pixels: the page is turned if its long side is not the
/// output's (where the file says so), resized to the output's short side, made smaller where it does not
/// fit, and put in the middle of black.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentProcessor {
    width: u32,
    height: u32,
    align_long_axis: bool,
    filter: Filter,
    normalize: Normalize,
}

/// Where a page is in the output of a [`DocumentProcessor`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PagePlacement {
    /// Width and height of the page, in its pixels.
    page: (u32, u32),
    /// Whether it is turned by 90 degrees clockwise.
    is_turned: bool,
    /// Width and height of the turned and resized page in the output.
    resized: (u32, u32),
    /// Its left upper corner in the output.
    corner: (u32, u32),
}

/// The keys of a file that are used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DonutPreprocessorConfig {
    do_resize: Option<bool>,
    do_thumbnail: Option<bool>,
    do_align_long_axis: Option<bool>,
    do_pad: Option<bool>,
    do_center_crop: Option<bool>,
    size: Option<Value>,
    resample: Option<usize>,
    #[serde(flatten)]
    normalization: Normalization,
}

impl DocumentProcessor {
    /// Published Donuts': to `width` x `height` pixels (from 1 to 8,192, else the nearest of these), not
    /// turned, bilinear, to the range -1 to 1.
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            width: width.clamp(1, MAX_SIDE),
            height: height.clamp(1, MAX_SIDE),
            align_long_axis: false,
            filter: Filter::Bilinear,
            normalize: DEFAULT_NORMALIZE,
        }
    }

    /// The same, with pages turned by 90 degrees clockwise if their long side is not the output's.
    pub fn with_long_axis_aligned(self, align_long_axis: bool) -> Self {
        Self { align_long_axis, ..self }
    }

    /// Width and height of the output, in pixels.
    pub fn output_size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Where a page of `width` x `height` pixels is in the output.
    pub fn placement(&self, width: u32, height: u32) -> PagePlacement {
        let is_turned = self.is_turned(width, height);
        let (turned_width, turned_height) = if is_turned { (height, width) } else { (width, height) };
        let resized = self.fitted(self.short_side(turned_width, turned_height));
        let corner = (self.width.saturating_sub(resized.0) / 2, self.height.saturating_sub(resized.1) / 2);
        PagePlacement { page: (width, height), is_turned, resized, corner }
    }

    /// Turns, resizes and pads a page to [`DocumentProcessor::output_size`], 8-bit;
    /// [`DocumentProcessor::normalize_batch`] does the rest.
    ///
    /// # Errors
    /// The page is empty, or so long that its resized form would not fit into memory.
    pub fn resize(&self, page: &RgbImage) -> Result<RgbImage> {
        self.resize_one(page, 0)
    }

    /// Processes pages in parallel to `pixel_values` `[B, 3, H, W]`.
    ///
    /// # Errors
    /// As [`DocumentProcessor::resize`].
    pub fn process_batch(&self, pages: &[RgbImage]) -> Result<Tensor> {
        let resized = pages.par_iter().enumerate().map(|(index, page)| self.resize_one(page, index));
        self.normalize_batch(&resized.collect::<Result<Vec<_>>>()?)
    }

    /// Normalizes pages of [`DocumentProcessor::output_size`] in parallel to `pixel_values` `[B, 3, H, W]`.
    ///
    /// # Errors
    /// A page has another size.
    pub fn normalize_batch(&self, pages: &[RgbImage]) -> Result<Tensor> {
        let (width, height) = self.output_size();
        if let Some(other) = pages.iter().find(|page| page.dimensions() != (width, height)) {
            let (w, h) = other.dimensions();
            let problem = format!("a page of {w} x {h} pixels among those of {width} x {height}");
            return Err(Error::Processor(problem));
        }
        let length = 3 * width as usize * height as usize;
        Ok(mm_sys::filled(&[pages.len() as i64, 3, height.into(), width.into()], |batch| {
            let outputs = batch.par_chunks_exact_mut(length).zip(pages);
            outputs.for_each(|(out, page)| self.normalize.write(page, out));
        }))
    }

    fn is_turned(&self, width: u32, height: u32) -> bool {
        let is_across = self.width < self.height && width > height;
        let is_upright = self.width > self.height && width < height;
        self.align_long_axis && (is_across || is_upright)
    }

    /// Width and height of a page resized to the short side of the output.
    fn short_side(&self, width: u32, height: u32) -> (u32, u32) {
        if width == 0 || height == 0 {
            return (width, height); // refused where it is resized
        }
        short_side_size(width, height, self.width.min(self.height))
    }

    /// Width and height of a page made smaller to fit into the output. A side has at least 1 pixel.
    fn fitted(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let (to_width, to_height) = (width.min(self.width), height.min(self.height));
        if (to_width, to_height) == (width, height) {
            return (width, height);
        }
        let scaled = |side: u32, to: u32, from: u32| {
            ((u64::from(side) * u64::from(to) / u64::from(from)) as u32).max(1)
        };
        if height > width {
            (scaled(width, to_height, height), to_height)
        } else {
            (to_width, scaled(height, to_width, width))
        }
    }

    fn resize_one(&self, page: &RgbImage, index: usize) -> Result<RgbImage> {
        let (width, height) = page.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { index, width, height });
        }
        let PagePlacement { is_turned, resized, corner, .. } = self.placement(width, height);
        let turned = is_turned.then(|| imageops::rotate90(page));
        let page = turned.as_ref().unwrap_or(page);
        let (short_width, short_height) = self.short_side(page.width(), page.height());
        if u64::from(short_width) * u64::from(short_height) > MAX_PIXELS {
            return Err(Error::Processor(format!(
                "image {index} of the batch is {width} x {height} pixels: a page so long is no document"
            )));
        }
        // In two steps, as the peer does it.
        let mut page = resize::exact(page, short_width, short_height, self.filter);
        if page.dimensions() != resized {
            page = resize::exact(&page, resized.0, resized.1, self.filter);
        }
        let mut padded = RgbImage::new(self.width, self.height);
        imageops::replace(&mut padded, &page, corner.0.into(), corner.1.into());
        Ok(padded)
    }

    /// Reads the preprocessing of the model in `folder`, and returns the file that it is from, as
    /// [`ImageProcessor::from_folder`](crate::ImageProcessor::from_folder) does.
    ///
    /// # Errors
    /// The folder has no such file, or as [`DocumentProcessor::from_json`].
    pub fn from_folder(folder: &Path) -> Result<(PathBuf, Self)> {
        let (file, config) = image_processor_config(folder)?;
        match Self::from_json(&config) {
            Ok(processor) => Ok((file, processor)),
            Err(Error::Processor(text)) => Err(Error::Processor(format!("{}: {text}", file.display()))),
            Err(error) => Err(error),
        }
    }

    /// Reads a `preprocessor_config.json` of the class `DonutImageProcessor`; absent and null keys have its
    /// defaults.
    ///
    /// # Errors
    /// The JSON is no such object, is of another class, or needs what is not supported: pages of any size.
    pub fn from_json(config: &Value) -> Result<Self> {
        let wrong = |problem: String| Error::Processor(problem);
        for name in ["image_processor_type", "feature_extractor_type"] {
            match config[name].as_str() {
                Some(class) if !class.starts_with("Donut") => {
                    return Err(wrong(format!("{name} is {class}: it must be DonutImageProcessor")));
                }
                _ => {}
            }
        }
        if !config.is_object() {
            return Err(wrong(format!("{config} is no object"))); // serde would take a list for one
        }
        let config =
            DonutPreprocessorConfig::deserialize(config).map_err(|error| wrong(error.to_string()))?;
        let steps = [
            ("do_resize", config.do_resize),
            ("do_thumbnail", config.do_thumbnail),
            ("do_pad", config.do_pad),
        ];
        if let Some((name, _)) = steps.into_iter().find(|(_, step)| *step == Some(false)) {
            return Err(wrong(format!("{name} is false: pages would differ in size")));
        }
        if config.do_center_crop == Some(true) {
            return Err(wrong("do_center_crop is true: pages are not cropped here".to_owned()));
        }
        let size = config.size.unwrap_or_else(|| json!({"height": 2560, "width": 1920}));
        let (width, height) = sides(&size).ok_or_else(|| {
            wrong(format!(
                "size is {size}: expected height and width, or a list of width and height, from 1 to \
                 {MAX_SIDE}"
            ))
        })?;
        let number = config.resample.unwrap_or(2);
        let filter =
            RESAMPLE.get(number).ok_or_else(|| wrong(format!("resample is {number}: it must be 0 to 5")))?;
        let normalize = config.normalization.or_default(DEFAULT_NORMALIZE)?;
        let align_long_axis = config.do_align_long_axis.unwrap_or(false);
        Ok(Self { width, height, align_long_axis, filter: *filter, normalize })
    }

    /// The `preprocessor_config.json` that transformers reads.
    pub fn to_json(&self) -> Value {
        json!({
            "image_processor_type": "DonutImageProcessor",
            "do_resize": true,
            "size": { "height": self.height, "width": self.width },
            "resample": RESAMPLE.iter().position(|filter| *filter == self.filter),
            "do_thumbnail": true,
            "do_align_long_axis": self.align_long_axis,
            "do_pad": true,
            "do_rescale": true,
            "rescale_factor": PER_LEVEL,
            "do_normalize": true,
            "image_mean": self.normalize.mean.map(shortest),
            "image_std": self.normalize.std.map(shortest),
        })
    }
}

/// Width and height of `size`: an object, or, in files from before transformers 4.28, a list of width and
/// height.
fn sides(size: &Value) -> Option<(u32, u32)> {
    let (width, height) = match size {
        Value::Array(sides) if sides.len() == 2 => (&sides[0], &sides[1]),
        size => (&size["width"], &size["height"]),
    };
    let side = |side: &Value| {
        let side = u32::try_from(side.as_u64()?).ok()?;
        (1..=MAX_SIDE).contains(&side).then_some(side)
    };
    Some((side(width)?, side(height)?))
}

impl PagePlacement {
    /// The box `[left, top, right, bottom]` of the output, in its pixels, as a box of the page, in the page's
    /// pixels. What is outside of the page is cut off.
    pub fn to_page(&self, [left, top, right, bottom]: [f64; 4]) -> [f64; 4] {
        let [(x0, y0), (x1, y1)] = [(left, top), (right, bottom)].map(|(x, y)| self.point_to_page(x, y));
        [x0.min(x1), y0.min(y1), x0.max(x1), y0.max(y1)]
    }

    /// The point `(x, y)` of the page, in its pixels, as a point of the output, in the output's pixels: the
    /// inverse of [`PagePlacement::to_page`].
    pub fn from_page(&self, x: f64, y: f64) -> (f64, f64) {
        let (width, height) = (f64::from(self.page.0), f64::from(self.page.1));
        let (x, y) = if self.is_turned { (1.0 - y / height, x / width) } else { (x / width, y / height) };
        let (resized, corner) = (self.resized, self.corner);
        (f64::from(corner.0) + x * f64::from(resized.0), f64::from(corner.1) + y * f64::from(resized.1))
    }

    fn point_to_page(&self, x: f64, y: f64) -> (f64, f64) {
        let share = |at: f64, corner: u32, side: u32| {
            ((at - f64::from(corner)) / f64::from(side.max(1))).clamp(0.0, 1.0)
        };
        let (x, y) = (share(x, self.corner.0, self.resized.0), share(y, self.corner.1, self.resized.1));
        // Turned clockwise, the page's left side is on top, and its top on the right.
        let (x, y) = if self.is_turned { (y, 1.0 - x) } else { (x, y) };
        (x * f64::from(self.page.0), y * f64::from(self.page.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_page_is_in_the_middle_of_black_and_keeps_its_ratio() {
        let processor = DocumentProcessor::new(60, 80);
        for (page, resized, corner) in [
            ((120, 160), (60, 80), (0, 0)),
            ((100, 100), (60, 60), (0, 10)),
            ((200, 100), (60, 30), (0, 25)),
            ((10, 100), (8, 80), (26, 0)),
            ((1, 1000), (1, 80), (29, 0)),
        ] {
            let placement = processor.placement(page.0, page.1);
            assert_eq!((placement.resized, placement.corner), (resized, corner), "{page:?}");
        }
        let page = processor.resize(&RgbImage::from_pixel(200, 100, Rgb([200; 3]))).unwrap();
        let levels = [(0, 24), (0, 25), (59, 54), (59, 55)].map(|(x, y)| page[(x, y)].0[0]);
        assert_eq!((page.dimensions(), levels), ((60, 80), [0, 200, 200, 0]));
    }

    #[test]
    fn a_page_across_is_turned_clockwise_where_asked() {
        let processor = DocumentProcessor::new(60, 80).with_long_axis_aligned(true);
        let mut page = RgbImage::from_pixel(160, 120, Rgb([100; 3]));
        for x in 0..20 {
            (0..20).for_each(|y| page.put_pixel(x, y, Rgb([255; 3]))); // its left upper corner
        }
        let turned = processor.resize(&page).unwrap();
        let levels = [(55, 4), (4, 4), (55, 75), (4, 75)].map(|(x, y)| turned[(x, y)].0[0]);
        assert_eq!(levels, [255, 100, 100, 100]);
        let placement = processor.placement(160, 120);
        let corner = placement.to_page([50.0, 0.0, 60.0, 10.0]).map(f64::round);
        assert_eq!(corner, [0.0, 0.0, 20.0, 20.0]);
        assert!(!processor.is_turned(120, 160) && !processor.is_turned(100, 100));
        let across = DocumentProcessor::new(80, 60).with_long_axis_aligned(true);
        assert!(across.is_turned(120, 160) && !across.is_turned(160, 120));
    }

    #[test]
    fn places_of_the_output_are_places_of_the_page() {
        let upright = DocumentProcessor::new(60, 80);
        let placement = upright.placement(200, 100);
        assert_eq!(placement.to_page([0.0, 25.0, 60.0, 55.0]), [0.0, 0.0, 200.0, 100.0]);
        assert_eq!(placement.to_page([30.0, 0.0, 60.0, 40.0]), [100.0, 0.0, 200.0, 50.0]);
        assert_eq!(placement.to_page([0.0, 0.0, 60.0, 20.0])[3], 0.0); // above the page
        for processor in [upright.clone(), upright.with_long_axis_aligned(true)] {
            let placement = processor.placement(200, 100);
            let (x, y) = placement.from_page(150.0, 20.0);
            let [x0, y0, ..] = placement.to_page([x, y, x, y]);
            assert!((x0 - 150.0).abs() < 1e-9 && (y0 - 20.0).abs() < 1e-9, "{x0} {y0}");
        }
    }

    #[test]
    fn pages_without_pixels_or_without_end_are_refused() {
        let processor = DocumentProcessor::new(600, 800);
        let error = processor.process_batch(&[RgbImage::new(4, 4), RgbImage::new(0, 3)]).unwrap_err();
        assert!(error.to_string().starts_with("image 1 of the batch is 0 x 3 pixels"));
        let error = processor.resize(&RgbImage::new(1, 1_000_000)).unwrap_err().to_string();
        assert!(error.contains("a page so long is no document"), "{error}");
        assert_eq!(processor.process_batch(&[]).unwrap().size(), [0, 3, 800, 600]);
        assert!(processor.normalize_batch(&[RgbImage::new(3, 3)]).is_err());
    }

    #[test]
    fn what_is_written_reads_back_the_same_and_what_is_not_offered_is_refused() {
        for processor in
            [DocumentProcessor::new(224, 320), DocumentProcessor::new(320, 224).with_long_axis_aligned(true)]
        {
            assert_eq!(DocumentProcessor::from_json(&processor.to_json()).unwrap(), processor);
        }
        let read = |size: Value| DocumentProcessor::from_json(&json!({"size": size}));
        assert_eq!(read(json!([960, 1280])).unwrap().output_size(), (960, 1280));
        assert_eq!(read(json!(null)).unwrap(), DocumentProcessor::new(1920, 2560));
        for (config, expected) in [
            (json!({"image_processor_type": "CLIPImageProcessor"}), "it must be DonutImageProcessor"),
            (json!({"do_thumbnail": false}), "do_thumbnail is false"),
            (json!({"do_center_crop": true}), "do_center_crop is true"),
            (json!({"size": {"shortest_edge": 4}}), "size is {\"shortest_edge\":4}"),
            (json!({"size": [0, 9000]}), "size is [0,9000]"),
            (json!({"resample": 9}), "resample is 9"),
            (json!([]), "is no object"),
        ] {
            let error = DocumentProcessor::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
