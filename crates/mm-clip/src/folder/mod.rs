//! The folder of a CLIP or of one of its towers, in the formats of transformers, open_clip and OpenAI.

mod fill;
mod format;
mod hf;
mod open_clip;
mod saved;
mod tokenizer;
mod verify;

pub use format::{Architecture, CheckpointFormat};
pub use saved::{Description, Saved};
pub(crate) use tokenizer::TokenizerSource;
pub(crate) use verify::{same_architecture, verify};

use crate::checkpoint::join_names;
use crate::encoder::TEXT_ROOT;
use crate::{ClipConfig, Error, Result, TextProjection};
use mm_core::checkpoint::Weights;
use mm_core::hf::{CONFIG_FILE, HfFolder, OPEN_CLIP_CONFIG_FILE};
use mm_core::read_json;
use mm_text::{BertPooling, TOKENIZER_FILES, TextTowerConfig, Tokenizer};
use mm_vision::{ImageProcessor, ImageTowerConfig};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The stem of int8 weights. Other programs would read them wrongly, so the name is one that they do not
/// find.
const INT8_STEM: &str = "model.int8";

/// The tensors of OpenAI's state dicts that are not weights.
const OPENAI_NUMBERS: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// A model folder with its config read and its weights mapped.
#[derive(Debug)]
pub struct ModelFolder {
    /// The folder.
    pub folder: HfFolder,
    /// The format of its config and weights.
    pub format: CheckpointFormat,
    /// The model that it holds.
    pub architecture: Architecture,
    /// Its tensors; [`ModelFolder::fill`] copies them.
    pub weights: Weights,
    /// `open_clip_config.json` in open_clip's format, else null.
    open_clip: Value,
}

impl ModelFolder {
    /// Reads the config in the folder or of the hub name `model` and maps its weights. Of a checkpoint of a
    /// training run these are the moving averages where the run keeps any.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture is not known.
    pub fn open(model: &str) -> Result<Self> {
        let folder = HfFolder::open(model)?;
        if folder.is_checkpoint() { Self::open_checkpoint(folder, true) } else { Self::open_saved(folder) }
    }

    /// As [`ModelFolder::open`], of a checkpoint of a training run, with the weights of its last step.
    ///
    /// # Errors
    /// As [`ModelFolder::open`].
    pub(crate) fn open_last_step(checkpoint: &Path) -> Result<Self> {
        Self::open_checkpoint(HfFolder::at(checkpoint), false)
    }

    /// Whether `folder` is a checkpoint of a training run with the model's config.
    pub(crate) fn is_described_checkpoint(folder: &Path) -> bool {
        let folder = HfFolder::at(folder);
        folder.is_checkpoint() && folder.has(CONFIG_FILE)
    }

    fn open_checkpoint(folder: HfFolder, averaged: bool) -> Result<Self> {
        let weights = folder.checkpoint_weights(averaged)?;
        let architecture = hf::read(&folder, &weights)?;
        let format = CheckpointFormat::Checkpoint;
        Ok(Self { folder, format, architecture, weights, open_clip: Value::Null })
    }

    fn open_saved(folder: HfFolder) -> Result<Self> {
        let has_open_clip_weights = ["open_clip_model.safetensors", "open_clip_model.safetensors.index.json"]
            .iter()
            .any(|name| folder.has(name))
            || (folder.has("open_clip_pytorch_model.bin") && !folder.has("model.safetensors"));
        // Many folders of the hub hold both formats.
        if folder.has(OPEN_CLIP_CONFIG_FILE) && (has_open_clip_weights || !folder.has(CONFIG_FILE)) {
            return Self::open_open_clip(
                folder,
                if has_open_clip_weights { "open_clip_model" } else { "model" },
            );
        }
        let is_int8 = folder.has(&format!("{INT8_STEM}.safetensors"));
        let weights = folder.weights(if is_int8 { INT8_STEM } else { "model" })?;
        if folder.has(CONFIG_FILE) {
            Self::open_hf(folder, weights)
        } else {
            Self::open_openai(folder, weights)
        }
    }

    fn open_open_clip(folder: HfFolder, stem: &str) -> Result<Self> {
        let file = folder.file(OPEN_CLIP_CONFIG_FILE);
        let open_clip: Value = read_json(&file)?;
        let mut weights = folder.weights(stem)?;
        let model_cfg = &open_clip["model_cfg"];
        let text_config = match open_clip::has_hf_towers(model_cfg) {
            true => Some(open_clip::text_config(&folder, &weights)?),
            false => None,
        };
        let clip = open_clip::read(model_cfg, text_config.as_ref()).map_err(|error| error.at(&file))?;
        match &clip.text {
            // CustomTextCLIP keeps its text tower below `text`.
            TextTowerConfig::Clip(_) => {
                weights.rename(|name| name.strip_prefix("text.").unwrap_or(name).to_owned());
            }
            TextTowerConfig::Bert(bert) if bert.pooling != BertPooling::Pooler => {
                weights.retain(|name| !name.starts_with("text.transformer.pooler."));
            }
            TextTowerConfig::Bert(_) => {}
        }
        let architecture = Architecture::Clip(clip);
        Ok(Self { folder, format: CheckpointFormat::OpenClip, architecture, weights, open_clip })
    }

    fn open_openai(folder: HfFolder, mut weights: Weights) -> Result<Self> {
        weights.retain(|name| !OPENAI_NUMBERS.contains(&name));
        let clip = open_clip::infer(&weights).map_err(|error| error.at(weights.path()))?;
        let architecture = Architecture::Clip(clip);
        let format = CheckpointFormat::Openai;
        Ok(Self { folder, format, architecture, weights, open_clip: Value::Null })
    }

    fn open_hf(folder: HfFolder, mut weights: Weights) -> Result<Self> {
        let architecture = hf::read(&folder, &weights)?;
        match &architecture {
            Architecture::Clip(_) => {}
            Architecture::Image { tower, .. } => join_names(&mut weights, tower.root()),
            Architecture::Text { .. } => join_names(&mut weights, TEXT_ROOT),
        }
        if let Architecture::Text { tower: TextTowerConfig::Bert(bert), .. } = &architecture
            && bert.pooling != BertPooling::Pooler
        {
            weights.retain(|name| !name.starts_with("text_model.pooler."));
        }
        Ok(Self { folder, format: CheckpointFormat::Hf, architecture, weights, open_clip: Value::Null })
    }

    /// The config of both towers.
    ///
    /// # Errors
    /// The folder holds one tower alone.
    pub fn clip(&self) -> Result<&ClipConfig> {
        match &self.architecture {
            Architecture::Clip(config) => Ok(config),
            Architecture::Image { .. } => Err(self.missing("text tower: it is an image tower alone")),
            Architecture::Text { .. } => Err(self.missing("image tower: it is a text tower alone")),
        }
    }

    /// The image tower, and the width of its projection where it has one.
    ///
    /// # Errors
    /// The folder holds a text tower alone.
    pub fn image(&self) -> Result<(ImageTowerConfig, Option<i64>)> {
        match &self.architecture {
            Architecture::Clip(config) => Ok((config.image.clone(), config.image_projection_to())),
            Architecture::Image { tower, projection } => Ok((tower.clone(), *projection)),
            Architecture::Text { .. } => Err(self.missing("image tower: it is a text tower alone")),
        }
    }

    /// The text tower, and its projection where it has one.
    ///
    /// # Errors
    /// The folder holds an image tower alone.
    pub fn text(&self) -> Result<(TextTowerConfig, Option<TextProjection>)> {
        match &self.architecture {
            Architecture::Clip(config) => Ok((config.text.clone(), config.text_projection_to())),
            Architecture::Text { tower, projection } => {
                Ok((tower.clone(), projection.map(TextProjection::linear)))
            }
            Architecture::Image { .. } => Err(self.missing("text tower: it is an image tower alone")),
        }
    }

    /// The name on the hub of the text tower's config, in a folder of open_clip with a BERT.
    pub(crate) fn hf_model_name(&self) -> Option<&str> {
        open_clip::hf_name(&self.open_clip["model_cfg"])
    }

    fn missing(&self, what: &str) -> Error {
        let problem = format!("the model has no {what}");
        Error::Folder { path: self.folder.path().to_owned(), problem }
    }

    /// The tokenizer, which fits the text tower. It is OpenAI's where a folder of open_clip or OpenAI has and
    /// names none.
    ///
    /// # Errors
    /// Files are missing or malformed, or the tokenizer does not fit.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        self.tokenizer_source().read(&self.text()?.0)
    }

    /// The location and settings of the tokenizer, which can be read on another thread.
    pub(crate) fn tokenizer_source(&self) -> TokenizerSource {
        let folder = self.folder.tokenizer_folder();
        TokenizerSource::new(&folder, self.format, &self.open_clip["model_cfg"]["text_cfg"])
    }

    /// The files of the tokenizer.
    pub(crate) fn tokenizer_files(&self) -> Vec<PathBuf> {
        let folder = self.folder.tokenizer_folder();
        TOKENIZER_FILES.map(|name| folder.join(name)).into_iter().filter(|file| file.exists()).collect()
    }

    /// The preprocessing from images to `pixel_values` of the image tower's size.
    ///
    /// # Errors
    /// The file of the preprocessing is missing, malformed or of another size than the tower's.
    pub fn processor(&self) -> Result<ImageProcessor> {
        let (tower, _) = self.image()?;
        let size = tower.image_size() as u32;
        let (file, processor) = match self.format {
            CheckpointFormat::OpenClip => {
                let file = self.folder.file(OPEN_CLIP_CONFIG_FILE);
                let processor = self.open_clip_processor(size).map_err(|error| error.at(&file))?;
                (file, processor)
            }
            format => {
                let folder = self.folder.processor_folder();
                match ImageProcessor::from_folder(&folder, tower.processor_class()) {
                    Err(mm_vision::Error::Io { source, .. })
                        if format == CheckpointFormat::Openai
                            && source.kind() == std::io::ErrorKind::NotFound =>
                    {
                        return Ok(ImageProcessor::default_clip(size));
                    }
                    found => found?,
                }
            }
        };
        let (width, height) = processor.output_size();
        if (width, height) == (size, size) {
            return Ok(processor);
        }
        let problem = format!("images become {width} x {height} pixels, but the tower takes {size} x {size}");
        Err(Error::Folder { path: file, problem })
    }

    /// The preprocessing of `open_clip_config.json`, of `size` pixels where the file gives no size.
    fn open_clip_processor(&self, size: u32) -> Result<ImageProcessor> {
        let mut config = self.open_clip["preprocess_cfg"].clone();
        if config.is_null() {
            config = json!({});
        }
        if let Some(fields) =
            config.as_object_mut().filter(|fields| fields.get("size").is_none_or(Value::is_null))
        {
            fields.insert("size".to_owned(), size.into());
        }
        Ok(ImageProcessor::from_open_clip(&config)?)
    }
}
