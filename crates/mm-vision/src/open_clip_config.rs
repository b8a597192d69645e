//! Reads and writes open_clip's `preprocess_cfg`.

use crate::channels::{Channels, normalize, shortest};
use crate::error::{Error, Result};
use crate::geometry::{Crop, Margins, Resize};
use crate::processor::ImageProcessor;
use mm_image::Normalize;
use mm_image::resize::Filter;
use serde::Deserialize;
use serde_json::{Value, json};

/// The keys of open_clip 3's `PreprocessCfg`, all of which change an image. A key that is not one of them is
/// an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PreprocessConfig {
    size: Option<Size>,
    mode: Option<String>,
    mean: Option<Channels>,
    std: Option<Channels>,
    interpolation: Option<Interpolation>,
    resize_mode: Option<ResizeMode>,
    fill_color: Option<u8>,
    /// A key of this project: the margin that gets the odd pixel, if it is not the one of open_clip.
    crop_margins: Option<Margins>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "size: expected a number or [height, width]")]
enum Size {
    Side(u32),
    HeightWidth(u32, u32),
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Interpolation {
    #[default]
    Bicubic,
    Bilinear,
    /// In training; else bicubic.
    Random,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ResizeMode {
    #[default]
    Shortest,
    Squash,
    Longest,
}

impl ImageProcessor {
    /// The preprocessing for inference that the `preprocess_cfg` of an `open_clip_config.json` describes.
    /// Absent and null keys have open_clip's defaults.
    ///
    /// # Errors
    /// A key or a value that is not open_clip's, a side that is not 1 to 4,096, or a `std` that is not above
    /// 0.
    pub fn from_open_clip(preprocess_cfg: &Value) -> Result<Self> {
        let wrong = |problem: String| Error::Processor(format!("preprocess_cfg: {problem}"));
        if !preprocess_cfg.is_object() {
            return Err(wrong(format!("{preprocess_cfg} is no object"))); // serde would take a list for one
        }
        let config =
            PreprocessConfig::deserialize(preprocess_cfg).map_err(|error| wrong(error.to_string()))?;
        if let Some(mode) = config.mode.filter(|mode| mode != "RGB") {
            return Err(wrong(format!("mode is {mode}: only RGB is offered")));
        }
        let (width, height) = match config.size.unwrap_or(Size::Side(224)) {
            Size::Side(side) => (side, side),
            Size::HeightWidth(height, width) => (width, height),
        };
        let filter = match config.interpolation.unwrap_or_default() {
            Interpolation::Bicubic | Interpolation::Random => Filter::Bicubic,
            Interpolation::Bilinear => Filter::Bilinear,
        };
        let margins = config.crop_margins.unwrap_or(Margins::Torchvision);
        let crop = |fill| Some(Crop { width, height, fill, margins });
        let (resize, filter, crop) = match config.resize_mode.unwrap_or_default() {
            ResizeMode::Shortest if width == height => (Resize::ShortSide(width), filter, crop(0)),
            // open_clip ignores its interpolation here.
            ResizeMode::Shortest => (Resize::Cover(width, height), Filter::Bicubic, crop(0)),
            ResizeMode::Squash => (Resize::Exact(width, height), filter, None),
            ResizeMode::Longest => {
                (Resize::RoundedWithin(width, height), filter, crop(config.fill_color.unwrap_or(0)))
            }
        };
        let mean = config.mean.map_or(Normalize::CLIP.mean.map(shortest), Channels::each);
        let std = config.std.map_or(Normalize::CLIP.std.map(shortest), Channels::each);
        Self::new(Some(resize), filter, crop, normalize(1.0 / 255.0, mean, std)?)
    }

    /// The `preprocess_cfg` that describes this preprocessing. open_clip puts the odd pixel of a crop's
    /// margins on its own side, so it can shift an image by one pixel if this was read from transformers'
    /// files; a key of this project keeps the side for reading here.
    ///
    /// # Errors
    /// open_clip has no setting for it: a crop of another size than the resizing's, or another filter than
    /// bicubic and bilinear.
    pub fn to_open_clip(&self) -> Result<Value> {
        let absent = |what: String| {
            Error::Processor(format!("open_clip has no {what}: keep it in Hugging Face's form"))
        };
        let interpolation = match self.filter {
            Filter::Bicubic => "bicubic",
            Filter::Bilinear => "bilinear",
            other => return Err(absent(format!("{other:?} filter").to_lowercase())),
        };
        let output = self.output_size();
        let resize_mode = match self.resize {
            Some(Resize::Exact(width, height)) if (width, height) == output => "squash",
            Some(Resize::ShortSide(side)) if (side, side) == output => "shortest",
            Some(Resize::Cover(width, height)) if (width, height) == output => "shortest",
            Some(Resize::RoundedWithin(width, height)) if (width, height) == output => "longest",
            resize => {
                let (width, height) = output;
                let resize = resize.map_or("no resizing".to_owned(), |resize| format!("{resize:?}"));
                return Err(absent(format!("{resize} with an output of {width} x {height}")));
            }
        };
        let size = match output {
            (width, height) if width == height => json!(width),
            (width, height) => json!([height, width]),
        };
        let mut config = json!({
            "size": size,
            "mode": "RGB",
            "mean": self.normalize.mean.map(shortest),
            "std": self.normalize.std.map(shortest),
            "interpolation": interpolation,
            "resize_mode": resize_mode,
            "fill_color": self.crop.map_or(0, |crop| crop.fill),
        });
        if let Some(crop) = self.crop.filter(|crop| crop.margins != Margins::Torchvision) {
            config["crop_margins"] = json!(crop.margins);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for config in [
            json!({}),
            json!({"size": 64, "mean": 0.5, "std": [0.25, 0.5, 0.5], "interpolation": "bilinear"}),
            json!({"size": [20, 32], "mode": "RGB", "interpolation": "random", "fill_color": null}),
            json!({"size": [20, 32], "resize_mode": "squash"}),
            json!({"size": 48, "resize_mode": "longest", "fill_color": 127}),
        ] {
            let processor = ImageProcessor::from_open_clip(&config).unwrap();
            let written = processor.to_open_clip().unwrap();
            assert_eq!(ImageProcessor::from_open_clip(&written).unwrap(), processor, "{written}");
            let own = processor.to_own_json().unwrap();
            assert_eq!(ImageProcessor::from_json(&own).unwrap(), processor, "{own}");
        }
    }

    #[test]
    fn processors_of_either_form_become_those_of_the_other() {
        for processor in [ImageProcessor::default_clip(32), ImageProcessor::default_siglip(32)] {
            let other = ImageProcessor::from_open_clip(&processor.to_open_clip().unwrap()).unwrap();
            assert_eq!(other, processor);
        }
        for config in
            [json!({"size": 64}), json!({"size": 48, "resize_mode": "squash", "interpolation": "bilinear"})]
        {
            let processor = ImageProcessor::from_open_clip(&config).unwrap();
            assert_eq!(
                ImageProcessor::from_json(&processor.to_json().unwrap()).unwrap(),
                processor,
                "{config}"
            );
        }
    }

    #[test]
    fn what_open_clip_cannot_say_is_an_error() {
        let crop = ImageProcessor::default_clip(224).crop;
        let message = |resize, filter| {
            let processor = ImageProcessor::new(resize, filter, crop, Normalize::CLIP).unwrap();
            processor.to_open_clip().unwrap_err().to_string()
        };
        assert!(
            message(Some(Resize::ShortSide(256)), Filter::Bicubic)
                .contains("ShortSide(256) with an output of 224")
        );
        assert!(message(None, Filter::Bicubic).contains("no resizing with an output of 224 x 224"));
        assert!(message(Some(Resize::ShortSide(224)), Filter::Lanczos).contains("lanczos filter"));
    }

    #[test]
    fn a_key_or_a_value_that_is_not_open_clips_is_named() {
        for (config, expected) in [
            (json!({"mode": "L"}), "mode is L"),
            (json!({"interpolation": "nearest"}), "unknown variant `nearest`"),
            (json!({"resize_mode": "crop"}), "unknown variant `crop`"),
            (json!({"size": "large"}), "size: expected a number or [height, width]"),
            (json!({"size": 0}), "a side of 0 pixels"),
            (json!({"std": [1, 1]}), "expected a number or three"),
            (json!({"std": 0}), "above 0"),
            (json!({"pad": 4}), "unknown field `pad`"),
            (json!([]), "preprocess_cfg"),
        ] {
            let message = ImageProcessor::from_open_clip(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
