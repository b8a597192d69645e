//! A model's folder, in the forms of transformers, open_clip and OpenAI: what it holds, and its tensors.

mod hf;
mod layout;
mod open_clip;
mod saved;
mod tokenizer;
mod verify;

pub use saved::{Description, Saved, StoredType};
pub(crate) use tokenizer::TokenizerSource;
pub(crate) use verify::{same_architecture, verify};

use crate::checkpoint::{OPEN_CLIP, join_names};
use crate::encoder::{TEXT_ROOT, image_root};
use crate::{ClipConfig, Error, Result};
use mm_core::checkpoint::{TensorLayout, Weights, refuse_lfs_pointer};
use mm_core::nn::{shapes_only, uninitialised};
use mm_text::{TOKENIZER_FILES, TextTowerConfig, Tokenizer};
use mm_vision::{ImageProcessor, ImageTowerConfig, PositionTable, VitVariant, resize_positions};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

/// Who else reads a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointFormat {
    /// transformers: `config.json`, `model.safetensors`.
    Hf,
    /// open_clip: `open_clip_config.json`, `open_clip_model.safetensors`.
    OpenClip,
    /// OpenAI's state dict alone: `model.safetensors`.
    Openai,
    /// This project's own, for pairs that no other form holds: as transformers', with a config and
    /// preprocessing in words of our own. It is read as [`CheckpointFormat::Hf`].
    Own,
    /// A checkpoint of a training run of this project: `config.json`, and `model.safetensors` or
    /// `ema.safetensors` with the names that variables have in memory.
    Checkpoint,
}

impl std::fmt::Display for CheckpointFormat {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(match self {
            Self::Hf => "transformers' form",
            Self::OpenClip => "open_clip's form",
            Self::Openai => "OpenAI's form",
            Self::Own => "this project's own form",
            Self::Checkpoint => "the form of a checkpoint",
        })
    }
}

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Both towers.
    Clip(ClipConfig),
    /// An image tower alone.
    Image {
        /// The tower.
        tower: ImageTowerConfig,
        /// The width that a linear map brings its output to.
        projection: Option<i64>,
    },
    /// A text tower alone.
    Text {
        /// The tower.
        tower: TextTowerConfig,
        /// The width that a linear map brings its output to.
        projection: Option<i64>,
    },
}

/// A model's folder whose config is read and whose weights are mapped.
#[derive(Debug)]
pub struct ModelFolder {
    /// The folder.
    pub path: PathBuf,
    /// Its form.
    pub form: CheckpointFormat,
    /// What it holds.
    pub architecture: Architecture,
    /// Its tensors, which [`ModelFolder::fill`] copies.
    pub weights: Weights,
    /// `open_clip_config.json`, where it is one.
    open_clip: Value,
}

const HF_CONFIG: &str = "config.json";
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
const PREPROCESSING: &str = "preprocessor_config.json";
/// The stem of int8 weights, which no other program reads as it should: by their own name it does not find
/// them.
const INT8_STEM: &str = "model.int8";
/// What OpenAI's state dicts hold beside the weights.
const OPENAI_NUMBERS: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

impl ModelFolder {
    /// Reads the config in the folder or of the hub name `model` and maps its weights: of a checkpoint of a
    /// training run, the averaged ones where there are any.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture is not known.
    pub fn open(model: &str) -> Result<Self> {
        let path = layout::model_folder(mm_core::hub::resolve(model)?)?;
        match layout::is_checkpoint(&path) {
            true => {
                let has_averages = path.join(layout::AVERAGES).exists();
                Self::open_checkpoint(path, if has_averages { layout::AVERAGES } else { layout::LAST_STEP })
            }
            false => Self::open_saved(path),
        }
    }

    /// As [`ModelFolder::open`], of a checkpoint of a training run, with the weights of its last step and not
    /// their averages.
    ///
    /// # Errors
    /// As [`ModelFolder::open`].
    pub(crate) fn open_last_step(checkpoint: &Path) -> Result<Self> {
        Self::open_checkpoint(checkpoint.to_owned(), layout::LAST_STEP)
    }

    /// Whether `folder` is a checkpoint of a training run that says what model it is of.
    pub(crate) fn is_described_checkpoint(folder: &Path) -> bool {
        layout::is_checkpoint(folder) && folder.join(HF_CONFIG).exists()
    }

    fn open_checkpoint(path: PathBuf, weights: &str) -> Result<Self> {
        let weights = Weights::open(&path.join(weights))?;
        let architecture = hf::read(&path, &weights).map_err(|error| error.at(&path.join(HF_CONFIG)))?;
        Ok(Self { path, form: CheckpointFormat::Checkpoint, architecture, weights, open_clip: Value::Null })
    }

    fn open_saved(path: PathBuf) -> Result<Self> {
        let open_clip_config = path.join(OPEN_CLIP_CONFIG);
        let has_open_clip_weights = ["open_clip_model.safetensors", "open_clip_model.safetensors.index.json"]
            .iter()
            .any(|name| path.join(name).exists());
        // A folder may serve both: many of the hub do.
        if open_clip_config.exists() && (has_open_clip_weights || !path.join(HF_CONFIG).exists()) {
            let stem = if has_open_clip_weights { "open_clip_model" } else { "model" };
            let config = read_json(&open_clip_config)?;
            let mut weights = Weights::open_folder(&path, stem)?;
            // CustomTextCLIP keeps its text tower apart.
            weights.rename(|name| name.strip_prefix("text.").unwrap_or(name).to_owned());
            let clip = open_clip::read(&config["model_cfg"]).map_err(|error| error.at(&open_clip_config))?;
            let architecture = Architecture::Clip(clip);
            return Ok(Self {
                path,
                form: CheckpointFormat::OpenClip,
                architecture,
                weights,
                open_clip: config,
            });
        }
        let is_int8 = path.join(format!("{INT8_STEM}.safetensors")).exists();
        let mut weights = Weights::open_folder(&path, if is_int8 { INT8_STEM } else { "model" })?;
        if !path.join(HF_CONFIG).exists() {
            weights.retain(|name| !OPENAI_NUMBERS.contains(&name));
            let clip = open_clip::infer(&weights).map_err(|error| error.at(weights.path()))?;
            let architecture = Architecture::Clip(clip);
            return Ok(Self {
                path,
                form: CheckpointFormat::Openai,
                architecture,
                weights,
                open_clip: Value::Null,
            });
        }
        let architecture = hf::read(&path, &weights).map_err(|error| error.at(&path.join(HF_CONFIG)))?;
        match &architecture {
            Architecture::Clip(_) => {}
            Architecture::Image { tower, .. } => join_names(&mut weights, image_root(tower)),
            Architecture::Text { .. } => join_names(&mut weights, TEXT_ROOT),
        }
        if let Architecture::Text { tower: TextTowerConfig::Bert(bert), .. } = &architecture
            && bert.pooling != mm_text::BertPooling::Pooler
        {
            weights.retain(|name| !name.starts_with("text_model.pooler."));
        }
        Ok(Self { path, form: CheckpointFormat::Hf, architecture, weights, open_clip: Value::Null })
    }

    /// The pair of towers.
    ///
    /// # Errors
    /// The folder holds one tower alone.
    pub fn clip(&self) -> Result<&ClipConfig> {
        match &self.architecture {
            Architecture::Clip(config) => Ok(config),
            Architecture::Image { .. } => Err(self.lacks("text tower: it is an image tower alone")),
            Architecture::Text { .. } => Err(self.lacks("image tower: it is a text tower alone")),
        }
    }

    /// The image tower and the width that it is projected to, if it is.
    ///
    /// # Errors
    /// The folder holds a text tower alone.
    pub fn image(&self) -> Result<(ImageTowerConfig, Option<i64>)> {
        match &self.architecture {
            Architecture::Clip(config) => Ok((config.image.clone(), config.image_projection_to())),
            Architecture::Image { tower, projection } => Ok((tower.clone(), *projection)),
            Architecture::Text { .. } => Err(self.lacks("image tower: it is a text tower alone")),
        }
    }

    /// The text tower and the width that it is projected to, if it is.
    ///
    /// # Errors
    /// The folder holds an image tower alone.
    pub fn text(&self) -> Result<(TextTowerConfig, Option<i64>)> {
        match &self.architecture {
            Architecture::Clip(config) => Ok((config.text.clone(), config.text_projection_to())),
            Architecture::Text { tower, projection } => Ok((tower.clone(), *projection)),
            Architecture::Image { .. } => Err(self.lacks("text tower: it is an image tower alone")),
        }
    }

    fn lacks(&self, what: &str) -> Error {
        Error::Folder { path: self.path.clone(), problem: format!("the model has no {what}") }
    }

    /// The tokenizer, which fits the text tower. OpenAI's own where open_clip's or OpenAI's folder brings
    /// none and names none.
    ///
    /// # Errors
    /// Files are missing or malformed, or the tokenizer does not fit.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        self.tokenizer_source().read(&self.text()?.0)
    }

    /// What it takes to read the tokenizer.
    pub(crate) fn tokenizer_source(&self) -> TokenizerSource {
        let folder = layout::tokenizer_folder(&self.path);
        TokenizerSource::new(&folder, self.form, &self.open_clip["model_cfg"]["text_cfg"])
    }

    /// The files that the tokenizer is read from.
    pub(crate) fn tokenizer_files(&self) -> Vec<PathBuf> {
        let folder = layout::tokenizer_folder(&self.path);
        TOKENIZER_FILES.map(|name| folder.join(name)).into_iter().filter(|file| file.exists()).collect()
    }

    /// How images become `pixel_values` of the image tower's size.
    ///
    /// # Errors
    /// The file of the preprocessing is missing, malformed or of another size than the tower's.
    pub fn processor(&self) -> Result<ImageProcessor> {
        let (tower, _) = self.image()?;
        let size = tower.image_size() as u32;
        let (file, processor) = match self.form {
            CheckpointFormat::OpenClip => {
                let mut config = self.open_clip["preprocess_cfg"].clone();
                if config.is_null() {
                    config = json!({});
                }
                if let Some(fields) =
                    config.as_object_mut().filter(|fields| fields.get("size").is_none_or(Value::is_null))
                {
                    fields.insert("size".to_owned(), size.into());
                }
                let processor = ImageProcessor::from_open_clip(&config).map_err(Error::from);
                let file = self.path.join(OPEN_CLIP_CONFIG);
                let processor = processor.map_err(|error| error.at(&file))?;
                (file, processor)
            }
            form => match ImageProcessor::from_folder(
                &layout::processor_folder(&self.path),
                processor_class(&tower),
            ) {
                Err(mm_vision::Error::Io { source, .. })
                    if form == CheckpointFormat::Openai && source.kind() == std::io::ErrorKind::NotFound =>
                {
                    return Ok(ImageProcessor::default_clip(size));
                }
                found => found?,
            },
        };
        match processor.output_size() {
            output if output == (size, size) => Ok(processor),
            (width, height) => {
                let problem =
                    format!("images become {width} x {height} pixels, but the tower takes {size} x {size}");
                Err(Error::Folder { path: file, problem })
            }
        }
    }

    /// Makes a model on `vs` and fills it. Its parameters are those of one tower or both, named as in
    /// [`Clip`](crate::Clip). `make` runs twice, first for shapes alone: a config that asks for other sizes
    /// than the weights have is refused before it takes memory.
    ///
    /// # Errors
    /// As `make` and [`ModelFolder::fill`].
    pub fn build<T>(
        mut self,
        vs: &VarStore,
        resized: Option<&ImageTowerConfig>,
        make: impl Fn(&nn::Path) -> Result<T>,
    ) -> Result<T> {
        self.check_shapes(resized, &make)?;
        let made = uninitialised(|| make(&vs.root()))?;
        self.fill(vs, resized)?;
        Ok(made)
    }

    /// Checks that the tensors are those of the model that `make` makes, which takes no memory.
    ///
    /// # Errors
    /// As [`ModelFolder::build`].
    pub(crate) fn check_shapes<T>(
        &mut self,
        resized: Option<&ImageTowerConfig>,
        make: impl Fn(&nn::Path) -> Result<T>,
    ) -> Result<()> {
        let config = match self.form {
            CheckpointFormat::Hf | CheckpointFormat::Own | CheckpointFormat::Checkpoint => {
                self.path.join(HF_CONFIG)
            }
            CheckpointFormat::OpenClip => self.path.join(OPEN_CLIP_CONFIG),
            CheckpointFormat::Openai => self.weights.path().to_owned(),
        };
        let plan = VarStore::new(Device::Cpu);
        shapes_only(|| make(&plan.root())).map_err(|error| error.at(&config))?;
        self.check(plan.variables().into_iter().collect(), resized)
    }

    /// Copies the weights to the variables of `vs`, which are those of one tower or both, named as in
    /// [`Clip`](crate::Clip). Tensors of a side that `vs` does not have are passed over. Where the image
    /// tower is `resized`, to another resolution than the folder's, so is its table of positions.
    ///
    /// # Errors
    /// Tensors and variables do not match.
    pub fn fill(self, vs: &VarStore, resized: Option<&ImageTowerConfig>) -> Result<()> {
        self.fill_variables(vs.variables().into_iter().collect(), resized)
    }

    /// As [`ModelFolder::fill`], of some variables.
    ///
    /// # Errors
    /// As [`ModelFolder::fill`].
    pub fn fill_variables(
        mut self,
        mut variables: Vec<(String, Tensor)>,
        resized: Option<&ImageTowerConfig>,
    ) -> Result<()> {
        self.keep_sides(&variables);
        if let Some((index, stored, table)) = self.positions(&variables, resized) {
            let (_, variable) = variables.swap_remove(index);
            let positions = resize_positions(&self.weights.take(&stored)?, table.extra_tokens, table.grid)?;
            tch::no_grad(|| variable.shallow_clone().f_copy_(&positions))?;
        }
        Ok(self.weights.fill(variables, &self.weights_form())?)
    }

    /// Checks what [`ModelFolder::fill_variables`] will find, of variables that need no memory for it.
    ///
    /// # Errors
    /// As [`ModelFolder::fill`].
    pub(crate) fn check(
        &mut self,
        mut variables: Vec<(String, Tensor)>,
        resized: Option<&ImageTowerConfig>,
    ) -> Result<()> {
        self.keep_sides(&variables);
        if let Some((index, stored, _)) = self.positions(&variables, resized) {
            let shape: Vec<i64> =
                self.weights.shape(&stored).into_iter().flatten().map(|&n| n as i64).collect();
            variables[index].1 =
                Tensor::zeros([0i64; 0], (Kind::Float, Device::Cpu)).f_expand(shape, false)?;
        }
        Ok(self.weights.check(variables, &self.weights_form())?)
    }

    /// Forgets the tensors of sides that `variables` do not have.
    fn keep_sides(&mut self, variables: &[(String, Tensor)]) {
        let has = |side: Side| variables.iter().any(|(name, _)| side_of(name) == side);
        let (image, text, head) = (has(Side::Image), has(Side::Text), has(Side::Head));
        self.weights.retain(|name| match side_of(name) {
            Side::Image => image,
            Side::Text => text,
            Side::Head => head,
        });
    }

    /// Where the table of positions of the tower `resized` is, if it differs from the folder's: its place
    /// among `variables`, and the tensor's name.
    fn positions(
        &self,
        variables: &[(String, Tensor)],
        resized: Option<&ImageTowerConfig>,
    ) -> Option<(usize, String, PositionTable)> {
        let tower = resized?;
        let table = tower.position_table()?;
        let name = format!("{}.{}", image_root(tower), table.name);
        let stored = (self.weights_form().names)(&name).swap_remove(0);
        let index = variables.iter().position(|(other, _)| *other == name)?;
        let differs = self.weights.shape(&stored)?.iter().map(|&n| n as i64).ne(variables[index].1.size());
        differs.then_some((index, stored, table))
    }

    /// How the folder names and lays out its tensors.
    pub fn weights_form(&self) -> TensorLayout {
        match self.form {
            CheckpointFormat::Hf | CheckpointFormat::Own => TensorLayout::HF,
            CheckpointFormat::OpenClip | CheckpointFormat::Openai => OPEN_CLIP,
            CheckpointFormat::Checkpoint => TensorLayout::AS_IS,
        }
    }
}

/// What a parameter belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Image,
    Text,
    Head,
}

/// The side of a parameter, by its name in any form.
fn side_of(name: &str) -> Side {
    match name {
        _ if name.starts_with("vision_model.") || name.starts_with("visual") => Side::Image,
        _ if name.starts_with("logit_") => Side::Head,
        _ => Side::Text,
    }
}

/// transformers' class of the preprocessing of a tower.
fn processor_class(tower: &ImageTowerConfig) -> &'static str {
    match tower {
        ImageTowerConfig::Vit(vit) if vit.form == VitVariant::Siglip => "SiglipImageProcessor",
        ImageTowerConfig::Vit(vit) if vit.form == VitVariant::Vit => "ViTImageProcessor",
        _ => "CLIPImageProcessor",
    }
}

fn read_json(file: &Path) -> Result<Value> {
    let text = std::fs::read(file).map_err(|source| mm_core::Error::io("read", file, source))?;
    let read = refuse_lfs_pointer(&text)
        .and_then(|()| serde_json::from_slice(&text).map_err(|error| error.to_string()));
    read.map_err(|problem| Error::Folder { path: file.to_owned(), problem })
}
