//! Reads and writes Hugging Face's `preprocessor_config.json`.

use crate::channels::{Normalization, PER_LEVEL, shortest};
use crate::error::{Error, Result};
use crate::geometry::{Crop, Margins, Resize};
use crate::processor::ImageProcessor;
use mm_core::read_json;
use mm_image::Normalize;
use mm_image::resize::Filter;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The file of transformers' image processors.
const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// The file of transformers' processors of texts and images.
const WHOLE_FILE: &str = "processor_config.json";

/// The key of this project's own form that holds open_clip's settings.
const OPEN_CLIPS_WORDS: &str = "preprocess_cfg";

/// Pillow's numbers of the filters.
pub(crate) const RESAMPLE: [Filter; 6] =
    [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic, Filter::Box, Filter::Hamming];

/// The keys of a file that are used. transformers adds many keys that do not change the pixels, so unknown
/// ones are ignored, as is `do_convert_rgb`: images here always have three channels.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PreprocessorConfig {
    image_processor_type: Option<String>,
    /// The same, before transformers 4.26.
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<u64>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    #[serde(flatten)]
    normalization: Normalization,
    do_pad: Option<bool>,
    pad_size: Option<Size>,
    /// A key of this project: the margin that gets the odd pixel, if it is not the one of transformers.
    crop_margins: Option<Margins>,
}

/// A size in pixels, in every form that files have.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a size: a number, [height, width] or an object with their names")]
enum Size {
    Side(u32),
    HeightWidth(u32, u32),
    Named(NamedSize),
}

/// The keys of a size, of which transformers allows certain sets.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NamedSize {
    height: Option<u32>,
    width: Option<u32>,
    shortest_edge: Option<u32>,
    longest_edge: Option<u32>,
    max_height: Option<u32>,
    max_width: Option<u32>,
}

impl Size {
    /// Width and height, if the size is given by them.
    fn exact(self) -> Option<(u32, u32)> {
        match self {
            Self::Side(side) => Some((side, side)),
            Self::HeightWidth(height, width)
            | Self::Named(NamedSize {
                height: Some(height),
                width: Some(width),
                shortest_edge: None,
                longest_edge: None,
                max_height: None,
                max_width: None,
            }) => Some((width, height)),
            Self::Named(_) => None,
        }
    }
}

/// A class of image processors, with its defaults.
#[derive(Debug)]
struct Class {
    /// Its name without `ImageProcessor`.
    name: &'static str,
    filter: Filter,
    normalize: Normalize,
    /// Sides of the output.
    side: u32,
    /// Whether one number means a square; else it means the short side.
    is_square: bool,
    crops: bool,
}

const CLIP: Class = Class {
    name: "CLIP",
    filter: Filter::Bicubic,
    normalize: Normalize::CLIP,
    side: 224,
    is_square: false,
    crops: true,
};

const VIT: Class = Class {
    name: "ViT",
    filter: Filter::Bilinear,
    normalize: Normalize::HALF,
    side: 224,
    is_square: true,
    crops: false,
};

const SIGLIP: Class = Class {
    name: "Siglip",
    filter: Filter::Bicubic,
    normalize: Normalize::HALF,
    side: 224,
    is_square: false,
    crops: false,
};

const BLIP: Class = Class {
    name: "Blip",
    filter: Filter::Bicubic,
    normalize: Normalize::CLIP,
    side: 384,
    is_square: true,
    crops: false,
};

const CLASSES: [Class; 4] = [CLIP, VIT, SIGLIP, BLIP];

impl PreprocessorConfig {
    /// The class of the file. The oldest files have none: those with a crop are CLIP's, the others ViT's.
    fn class(&self) -> Result<&'static Class> {
        let Some(name) = self.image_processor_type.as_ref().or(self.feature_extractor_type.as_ref()) else {
            let crops = self.do_center_crop.unwrap_or(self.crop_size.is_some());
            return Ok(if crops { &CLIP } else { &VIT });
        };
        let stem = name.strip_suffix("Fast").or(name.strip_suffix("Pil")).unwrap_or(name);
        let stem = stem.strip_suffix("ImageProcessor").or(stem.strip_suffix("FeatureExtractor"));
        CLASSES.iter().find(|class| Some(class.name) == stem).ok_or_else(|| {
            let known = CLASSES.map(|class| format!("{}ImageProcessor", class.name)).join(", ");
            Error::Processor(format!("image_processor_type is {name}: known are {known}"))
        })
    }

    /// The processor that the file describes.
    fn processor(&self) -> Result<ImageProcessor> {
        let class = self.class()?;
        let crop = match (self.do_center_crop.unwrap_or(class.crops), self.crop_size) {
            (false, _) => None,
            (true, Some(size)) => match size.exact() {
                Some(size) => Some(size),
                None => return wrong("crop_size must be a number, or have height and width alone"),
            },
            (true, None) if class.crops => Some((class.side, class.side)),
            (true, None) => return wrong("do_center_crop is true without crop_size"),
        };
        let crop = crop.map(|(width, height)| Crop {
            width,
            height,
            fill: 0,
            margins: self.crop_margins.unwrap_or(Margins::Transformers),
        });
        let resize = match self.do_resize {
            Some(false) => None,
            _ => Some(self.resize(class)?),
        };
        let filter = match self.resample {
            None => class.filter,
            Some(number) => match RESAMPLE.get(usize::try_from(number).unwrap_or(usize::MAX)) {
                Some(filter) => *filter,
                None => return wrong(&format!("resample is {number}: it must be 0 to 5")),
            },
        };
        let processor =
            ImageProcessor::new(resize, filter, crop, self.normalization.or_default(class.normalize)?)?;
        let padded = self.pad_size.map(Size::exact);
        match (self.do_pad, padded) {
            (Some(true), Some(size)) if size != Some(processor.output_size()) => {
                let (width, height) = processor.output_size();
                wrong(&format!(
                    "do_pad is true with a pad_size other than {width} x {height}, which is not offered"
                ))
            }
            _ => Ok(processor),
        }
    }

    fn resize(&self, class: &Class) -> Result<Resize> {
        let given = match self.size {
            Some(Size::Side(side)) if !class.is_square => return Ok(Resize::ShortSide(side)),
            None if class.crops => return Ok(Resize::ShortSide(class.side)),
            None => return Ok(Resize::Exact(class.side, class.side)),
            Some(size) => size,
        };
        if let Some((width, height)) = given.exact() {
            return Ok(Resize::Exact(width, height));
        }
        match given {
            Size::Named(NamedSize {
                shortest_edge: Some(short),
                longest_edge,
                height: None,
                width: None,
                ..
            }) => {
                Ok(longest_edge
                    .map_or(Resize::ShortSide(short), |long| Resize::ShortSideWithin { short, long }))
            }
            Size::Named(NamedSize {
                max_height: Some(height),
                max_width: Some(width),
                longest_edge: None,
                ..
            }) => Ok(Resize::Within(width, height)),
            Size::Named(NamedSize { longest_edge: Some(_), .. }) => wrong(
                "size has longest_edge without shortest_edge, which these processors of transformers refuse \
                 too",
            ),
            _ => wrong("size must have height and width, shortest_edge, or max_height and max_width"),
        }
    }
}

impl ImageProcessor {
    /// Reads the preprocessing of the model in `folder`, and returns the file that it is from. As in
    /// transformers 5, the `image_processor` of a `processor_config.json` has precedence over a
    /// `preprocessor_config.json`, which may be stale. If neither has a class it is the model's, `class`.
    ///
    /// # Errors
    /// The folder has neither ([`Error::Io`], of the latter), or as [`ImageProcessor::from_file`].
    pub fn from_folder(folder: &Path, class: &str) -> Result<(PathBuf, Self)> {
        let (file, mut config) = image_processor_config(folder)?;
        let names = ["image_processor_type", "feature_extractor_type"];
        if config.is_object() && names.iter().all(|name| config[name].is_null()) {
            config[names[0]] = class.into();
        }
        match Self::from_json(&config) {
            Ok(processor) => Ok((file, processor)),
            Err(error) => Err(at(&file, error)),
        }
    }

    /// Reads a `preprocessor_config.json`, or the `image_processor` of a `processor_config.json`. The classes
    /// `CLIPImageProcessor`, `SiglipImageProcessor`, `ViTImageProcessor` and `BlipImageProcessor` are
    /// supported; absent and null keys have the defaults of the class.
    ///
    /// # Errors
    /// The file cannot be read, is not such a JSON, or needs something not supported: another class,
    /// outputs that differ in size, or a border around the normalized image.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut config = read_object(path)?;
        if !config["image_processor"].is_null() {
            config = config["image_processor"].take();
        }
        Self::from_json(&config).map_err(|error| at(path, error))
    }

    /// Reads what [`ImageProcessor::to_json`] or [`ImageProcessor::to_own_json`] writes.
    ///
    /// # Errors
    /// As [`ImageProcessor::from_file`].
    pub fn from_json(config: &Value) -> Result<Self> {
        if !config[OPEN_CLIPS_WORDS].is_null() {
            return Self::from_open_clip(&config[OPEN_CLIPS_WORDS]);
        }
        let wrong = |problem: String| Error::Processor(problem);
        if !config.is_object() {
            return Err(wrong(format!("{config} is no object"))); // serde would take a list for one
        }
        PreprocessorConfig::deserialize(config).map_err(|error| wrong(error.to_string()))?.processor()
    }

    /// Writes a `preprocessor_config.json` that transformers reads: as a `CLIPImageProcessor` where there is
    /// a crop, else as a `SiglipImageProcessor`, or a `ViTImageProcessor` where the filter is its bilinear
    /// one.
    ///
    /// transformers puts the odd pixel of a crop's margins on its own side, so it can shift an image by one
    /// pixel if this was read from open_clip's config; a key of this project keeps the side for reading here.
    ///
    /// # Errors
    /// The file cannot be written, or transformers has no name for the resizing: open_clip's `longest`, and
    /// its `shortest` where height and width differ.
    pub fn save(&self, path: &Path) -> Result<()> {
        write(path, &self.to_json().map_err(|error| at(path, error))?)
    }

    /// A form that holds every processor: [`ImageProcessor::to_json`]'s, or open_clip's settings if
    /// transformers has none for it.
    ///
    /// # Errors
    /// Neither form can hold it. Never for a processor that was read from a file.
    pub fn to_own_json(&self) -> Result<Value> {
        self.to_json().or_else(|_| Ok(json!({ OPEN_CLIPS_WORDS: self.to_open_clip()? })))
    }

    /// The JSON that [`ImageProcessor::save`] writes.
    ///
    /// # Errors
    /// As [`ImageProcessor::save`], but for the file.
    pub fn to_json(&self) -> Result<Value> {
        let class = match (self.crop, self.filter) {
            (Some(_), _) => &CLIP,
            (None, Filter::Bilinear) => &VIT,
            (None, _) => &SIGLIP,
        };
        let mut config = json!({
            "do_convert_rgb": true,
            "do_resize": self.resize.is_some(),
            "resample": RESAMPLE.iter().position(|filter| *filter == self.filter),
            "do_rescale": true,
            "rescale_factor": PER_LEVEL,
            "do_normalize": true,
            "image_mean": self.normalize.mean.map(shortest),
            "image_std": self.normalize.std.map(shortest),
            "image_processor_type": format!("{}ImageProcessor", class.name),
        });
        match self.resize {
            None => {}
            Some(Resize::Exact(width, height)) => config["size"] = json!({"height": height, "width": width}),
            Some(Resize::ShortSide(side)) => config["size"] = json!({"shortest_edge": side}),
            Some(Resize::ShortSideWithin { short, long }) => {
                config["size"] = json!({"shortest_edge": short, "longest_edge": long});
            }
            Some(Resize::Within(width, height)) => {
                config["size"] = json!({"max_height": height, "max_width": width});
            }
            Some(Resize::RoundedWithin(..) | Resize::Cover(..)) => {
                return wrong(
                    "transformers has no name for open_clip's way of resizing: keep the model in open_clip's \
                     format",
                );
            }
        }
        if let Some(crop) = self.crop {
            config["do_center_crop"] = true.into();
            config["crop_size"] = json!({"height": crop.height, "width": crop.width});
            if crop.margins != Margins::Transformers {
                config["crop_margins"] = json!(crop.margins);
            }
        }
        Ok(config)
    }
}

fn wrong<T>(text: &str) -> Result<T> {
    Err(Error::Processor(text.to_owned()))
}

/// The preprocessing of the model in `folder`, with the file that it is from: the `image_processor` of
/// `processor_config.json`, or `preprocessor_config.json`.
///
/// # Errors
/// The folder has neither, or the file is no object of JSON.
pub fn image_processor_config(folder: &Path) -> Result<(PathBuf, Value)> {
    let whole = folder.join(WHOLE_FILE);
    if whole.exists() {
        let config = read_object(&whole)?["image_processor"].take();
        if !config.is_null() {
            return Ok((whole, config));
        }
    }
    let file = folder.join(PREPROCESSOR_FILE);
    let config = read_object(&file)?;
    Ok((file, config))
}

/// Reads a JSON file.
fn read_object(path: &Path) -> Result<Value> {
    Ok(Value::Object(read_json(path)?))
}

fn write(path: &Path, config: &Value) -> Result<()> {
    std::fs::write(path, format!("{config:#}\n"))
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Adds the file to the error.
fn at(path: &Path, error: Error) -> Error {
    match error {
        Error::Processor(text) => Error::Processor(format!("{}: {text}", path.display())),
        other => other,
    }
}

#[cfg(test)]
mod tests;
