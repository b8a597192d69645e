//! From images and texts with placeholders to tiles and tokens.

use super::config::{VlmConfig, VlmFamily};
use super::images::VlmImages;
use crate::{Error, Result};
use mm_core::hf::HfFolder;
use mm_image::RgbImage;
use mm_text::Tokenizer;
use mm_vision::{Idefics3Processor, ImageTiles, image_processor_config};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use tch::Tensor;

/// The tokens of Idefics3's prompts around the placeholders of a tile.
const AROUND_IMAGE: &str = "<fake_token_around_image>";
const GLOBAL_IMAGE: &str = "<global-img>";

/// Whether Idefics3 and SmolVLM cut large images into tiles.
///
/// SmolVLM's files set up to 16 tiles and the whole image, which cost 17 times the work of the whole image
/// alone: on two cores about 20 s a page instead of 1.2 s. So [`ImageSplitting::Off`] is the default. The
/// whole image is enough for a caption, and too small for the text of a page. Other families have one tile
/// an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSplitting {
    /// The whole image alone.
    #[default]
    Off,
    /// Tiles and the whole image.
    On,
    /// As the model's files say.
    FromFolder,
}

/// From images and texts with placeholders to tiles and tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct VlmProcessor {
    /// From images to tiles.
    pub images: VlmImages,
    /// Whether images are split.
    pub splitting: ImageSplitting,
    family: VlmFamily,
    image_token: String,
    image_token_id: u32,
    tile_tokens: usize,
    /// The tokens before each text.
    begin: Vec<u32>,
    /// The first of these as it is written.
    begin_text: Option<String>,
}

impl VlmProcessor {
    /// The processor of a model of `config`, whose texts end with `eos`.
    ///
    /// # Errors
    /// The tokenizer has no placeholder, or the tower does not take the tiles of `images`.
    pub fn new(config: &VlmConfig, images: VlmImages, tokenizer: &Tokenizer, eos: &[u32]) -> Result<Self> {
        let id = config.image_token_id;
        let image_token = tokenizer.token(id).ok_or_else(|| {
            Error::Model(format!(
                "the tokenizer has no token {id}, the image token: take the tokenizer that the model was \
                 trained with"
            ))
        })?;
        let side = images.side().ok_or_else(|| {
            Error::Model("images do not become squares, which the tower takes alone".to_owned())
        })?;
        // What the tokenizer puts before a text; some put the end token behind it.
        let begin: Vec<u32> = tokenizer.encode("")?.into_iter().filter(|id| !eos.contains(id)).collect();
        Ok(Self {
            tile_tokens: config.tile_tokens(side)?,
            images,
            splitting: ImageSplitting::Off,
            family: config.family,
            image_token,
            image_token_id: id,
            begin_text: begin.first().and_then(|&id| tokenizer.token(id)),
            begin,
        })
    }

    /// Reads the preprocessing of the images of the model in `folder`.
    ///
    /// # Errors
    /// The file is missing, malformed, or of another family.
    pub(super) fn read_images(folder: &HfFolder, family: VlmFamily) -> Result<(PathBuf, VlmImages)> {
        let (file, config): (PathBuf, Value) = image_processor_config(&folder.processor_folder())?;
        let images = match family {
            VlmFamily::SmolVlm | VlmFamily::Idefics3 => {
                Idefics3Processor::from_json(&config).map(VlmImages::Tiles)
            }
            VlmFamily::Llava => VlmImages::read_single(config),
        };
        match images {
            Ok(images) => Ok((file, images)),
            Err(error) => Err(Error::from(error).at(&file)),
        }
    }

    /// The same processor with `splitting`.
    pub fn with_splitting(self, splitting: ImageSplitting) -> Self {
        Self { splitting, ..self }
    }

    /// The placeholder as it is written in a text, one for each image.
    pub fn image_token(&self) -> &str {
        &self.image_token
    }

    /// The number of vectors of a tile, and of its placeholders in the tokens.
    pub fn tile_tokens(&self) -> usize {
        self.tile_tokens
    }

    /// The tiles of an image.
    ///
    /// # Errors
    /// The image is empty or has too many pixels.
    pub fn tiles(&self, image: &RgbImage) -> Result<ImageTiles> {
        let splits = match (self.splitting, &self.images) {
            (ImageSplitting::On, _) => true,
            (ImageSplitting::FromFolder, VlmImages::Tiles(processor)) => processor.splits(),
            (ImageSplitting::Off | ImageSplitting::FromFolder, _) => false,
        };
        self.images.tiles(image, splits)
    }

    /// Normalizes tiles to `pixel_values` `[T, 3, side, side]`.
    ///
    /// # Errors
    /// A tile has another size.
    pub fn normalize_batch(&self, tiles: &[RgbImage]) -> Result<Tensor> {
        self.images.normalize_batch(tiles)
    }

    /// `text` with the placeholders of all tiles of `images` in the place of the one of each image.
    ///
    /// # Errors
    /// The text has more or fewer placeholders than there are images.
    pub fn expand(&self, text: &str, images: &[ImageTiles]) -> Result<String> {
        let mut parts = text.split(&self.image_token);
        let places = parts.clone().count() - 1;
        if places != images.len() {
            let (token, images) = (&self.image_token, images.len());
            return Err(Error::Model(format!(
                "the prompt has {places} image tokens ({token}) for {images} images: each image needs one"
            )));
        }
        let mut expanded = parts.next().unwrap_or_default().to_owned();
        for (image, part) in images.iter().zip(parts) {
            self.write_image(image, &mut expanded);
            expanded.push_str(part);
        }
        Ok(expanded)
    }

    /// The tokens of `text`, which has one placeholder for each of `images`, with the begin token of the
    /// tokenizer unless the text has it.
    ///
    /// # Errors
    /// As [`VlmProcessor::expand`], or the tokenizer does not cover the text.
    pub fn encode(&self, tokenizer: &Tokenizer, text: &str, images: &[ImageTiles]) -> Result<Vec<u32>> {
        let expanded = self.expand(text, images)?;
        let begins = self.begin_text.as_ref().is_some_and(|begin| expanded.starts_with(begin));
        let mut ids = if begins { Vec::new() } else { self.begin.clone() };
        ids.extend(tokenizer.encode_words(&expanded)?);
        let places = ids.iter().filter(|&&id| id == self.image_token_id).count();
        let tiles: usize = images.iter().map(|image| image.tiles.len()).sum();
        if places != tiles * self.tile_tokens {
            return Err(Error::Model(format!(
                "the tokenizer makes {places} image tokens of a prompt with {tiles} tiles of {} each: take \
                 the tokenizer that the model was trained with",
                self.tile_tokens
            )));
        }
        Ok(ids)
    }

    /// Appends the placeholders of one image.
    fn write_image(&self, image: &ImageTiles, text: &mut String) {
        let placeholders = self.image_token.repeat(self.tile_tokens);
        if self.family == VlmFamily::Llava {
            text.push_str(&placeholders);
            return;
        }
        for row in 1..=image.rows {
            for column in 1..=image.columns {
                text.push_str(&format!("{AROUND_IMAGE}<row_{row}_col_{column}>{placeholders}"));
            }
            text.push('\n');
        }
        if image.rows > 0 {
            text.push('\n');
        }
        text.push_str(&format!("{AROUND_IMAGE}{GLOBAL_IMAGE}{placeholders}{AROUND_IMAGE}"));
    }

    /// The `preprocessor_config.json` that transformers reads.
    ///
    /// # Errors
    /// As [`mm_vision::ImageProcessor::to_json`].
    pub(super) fn to_json(&self) -> Result<Value> {
        let class = match self.family {
            VlmFamily::SmolVlm => "SmolVLMImageProcessor",
            VlmFamily::Idefics3 | VlmFamily::Llava => "Idefics3ImageProcessor",
        };
        Ok(self.images.to_json(class)?)
    }
}
