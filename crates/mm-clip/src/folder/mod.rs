//! A model's folder, in the forms of transformers, open_clip and OpenAI: what it holds, and its tensors.

mod hf;
mod open_clip;

use crate::checkpoint::{OPEN_CLIP, join_names};
use crate::encoder::{TEXT_ROOT, image_root};
use crate::{ClipConfig, Error, Result};
use mm_core::checkpoint::{Form, Weights, quantise, stored, write, write_atomically};
use mm_text::{TextTowerConfig, Tokenizer};
use mm_vision::{ImageProcessor, ImageTowerConfig, resize_positions};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Who else reads a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderForm {
    /// transformers: `config.json`, `model.safetensors`.
    Hf,
    /// open_clip: `open_clip_config.json`, `open_clip_model.safetensors`.
    OpenClip,
    /// OpenAI's state dict alone: `model.safetensors`.
    Openai,
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
    pub form: FolderForm,
    /// What it holds.
    pub architecture: Architecture,
    /// Its tensors, which [`ModelFolder::fill`] copies.
    pub weights: Weights,
    /// `open_clip_config.json`, where it is one.
    open_clip: Value,
}

const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

impl ModelFolder {
    /// Reads the config in the folder or of the hub name `model` and maps its weights.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture is not known.
    pub fn open(model: &str) -> Result<Self> {
        let path = mm_core::hub::resolve(model)?;
        let open_clip_config = path.join(OPEN_CLIP_CONFIG);
        let has_open_clip_weights = ["open_clip_model.safetensors", "open_clip_model.safetensors.index.json"]
            .iter()
            .any(|name| path.join(name).exists());
        // A folder may serve both: many of the hub do.
        if open_clip_config.exists() && (has_open_clip_weights || !path.join("config.json").exists()) {
            let stem = if has_open_clip_weights { "open_clip_model" } else { "model" };
            let config = read_json(&open_clip_config)?;
            let mut weights = Weights::open_folder(&path, stem)?;
            // CustomTextCLIP keeps its text tower apart.
            weights.rename(|name| name.strip_prefix("text.").unwrap_or(name).to_owned());
            let clip = open_clip::read(&config["model_cfg"]).map_err(|error| at(&open_clip_config, error))?;
            let architecture = Architecture::Clip(clip);
            return Ok(Self { path, form: FolderForm::OpenClip, architecture, weights, open_clip: config });
        }
        let mut weights = Weights::open_folder(&path, "model")?;
        if !path.join("config.json").exists() {
            weights.retain(|name| !["input_resolution", "context_length", "vocab_size"].contains(&name));
            let architecture = Architecture::Clip(open_clip::infer(&weights)?);
            return Ok(Self { path, form: FolderForm::Openai, architecture, weights, open_clip: Value::Null });
        }
        let architecture = hf::read(&path, &weights)?;
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
        Ok(Self { path, form: FolderForm::Hf, architecture, weights, open_clip: Value::Null })
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

    /// The tokenizer, which fits the text tower. OpenAI's own where open_clip's or OpenAI's folder brings none.
    ///
    /// # Errors
    /// Files are missing or malformed, or the tokenizer does not fit.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        read_tokenizer(&self.path, self.form, &self.text()?.0)
    }

    /// How images become `pixel_values` of the image tower's size.
    ///
    /// # Errors
    /// `preprocessor_config.json` is missing, malformed or of another size than the tower's.
    pub fn processor(&self) -> Result<ImageProcessor> {
        let (tower, _) = self.image()?;
        let size = tower.image_size() as u32;
        let file = self.path.join("preprocessor_config.json");
        let processor = match self.form {
            FolderForm::OpenClip if self.open_clip["preprocess_cfg"].is_object() => {
                let mut config = self.open_clip["preprocess_cfg"].clone();
                if config["size"].is_null() {
                    config["size"] = size.into();
                }
                ImageProcessor::from_open_clip(&config)?
            }
            FolderForm::Hf => ImageProcessor::from_file(&file)?,
            _ => ImageProcessor::default_clip(size),
        };
        match processor.output_size() == (size, size) {
            true => Ok(processor),
            false => {
                let (width, height) = processor.output_size();
                let problem = format!("images become {width} x {height} pixels, but the tower takes {size} x {size}");
                Err(Error::Folder { path: file, problem })
            }
        }
    }

    /// Copies the weights to the variables of `vs`, which are those of one tower or both, named as in [`Clip`](crate::Clip). Tensors of
    /// a side that `vs` does not have are passed over. Where `image` is of another resolution than the folder's, its table of
    /// positions is resized.
    ///
    /// # Errors
    /// Tensors and variables do not match.
    pub fn fill(self, vs: &VarStore, image: Option<&ImageTowerConfig>) -> Result<()> {
        self.fill_variables(vs.variables().into_iter().collect(), image)
    }

    /// As [`ModelFolder::fill`], of some variables.
    ///
    /// # Errors
    /// As [`ModelFolder::fill`].
    pub fn fill_variables(mut self, mut variables: Vec<(String, Tensor)>, image: Option<&ImageTowerConfig>) -> Result<()> {
        let form = self.weights_form();
        let has = |side: Side| variables.iter().any(|(name, _)| side_of(name) == side);
        let (image_wanted, text_wanted, head_wanted) = (has(Side::Image), has(Side::Text), has(Side::Head));
        self.weights.retain(|name| match side_of(name) {
            Side::Image => image_wanted,
            Side::Text => text_wanted,
            Side::Head => head_wanted,
        });
        if let Some((tower, positions)) = image.and_then(|tower| Some((tower, tower.position_table()?))) {
            let name = format!("{}.{}", image_root(tower), positions.name);
            let stored = (form.names)(&name).swap_remove(0);
            let index = variables.iter().position(|(other, _)| *other == name);
            if let (Some(index), Some(rows)) = (index, self.weights.shape(&stored).map(<[usize]>::to_vec)) {
                let variable = &variables[index].1;
                if rows.iter().map(|&n| n as i64).ne(variable.size()) {
                    let resized = resize_positions(&self.weights.take(&stored)?, positions.extra_tokens, positions.grid)?;
                    tch::no_grad(|| variable.shallow_clone().f_copy_(&resized))?;
                    variables.retain(|(other, _)| *other != name);
                }
            }
        }
        Ok(self.weights.fill(variables, &form)?)
    }

    /// How the folder names and lays out its tensors.
    pub fn weights_form(&self) -> Form {
        match self.form {
            FolderForm::Hf => Form::HF,
            FolderForm::OpenClip | FolderForm::Openai => OPEN_CLIP,
        }
    }
}

/// As [`ModelFolder::tokenizer`], from what it needs, so that it can run beside the copying of weights.
pub(crate) fn read_tokenizer(path: &Path, form: FolderForm, tower: &TextTowerConfig) -> Result<Tokenizer> {
    let has_own = || ["tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"].iter().any(|name| path.join(name).exists());
    let tokenizer = match form != FolderForm::Hf && !has_own() {
        true => Tokenizer::openai_clip()?,
        false => Tokenizer::from_dir(path)?,
    };
    let tokenizer = tokenizer.with_context_length(tower.context_length() as usize)?;
    tower.check_tokenizer(&tokenizer)?;
    Ok(tokenizer)
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

/// What is written into a model's folder.
pub struct Saved<'a> {
    /// What the model is.
    pub architecture: &'a Architecture,
    /// Its variables, named as in [`Clip`](crate::Clip).
    pub variables: Vec<(String, Tensor)>,
    /// Of the text tower.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Of the image tower.
    pub processor: Option<&'a ImageProcessor>,
}

/// How tensors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// The matrices of linear layers as int8 with a scale a row, all else as f32.
    Int8,
}

impl Saved<'_> {
    /// Writes everything into the existing `folder`, in `form`.
    ///
    /// # Errors
    /// A file cannot be written, or the form cannot hold the model.
    pub fn write(self, folder: &Path, form: FolderForm, dtype: StoredType) -> Result<()> {
        let names = if form == FolderForm::Hf { Form::HF } else { OPEN_CLIP };
        let bare_root = self.bare_root();
        let mut tensors = stored(self.variables, &names);
        for (name, _) in &mut tensors {
            if let Some(bare) = bare_root.and_then(|root| name.strip_prefix(root)?.strip_prefix('.')) {
                *name = bare.to_owned();
            }
        }
        let tensors = dtype.convert(tensors);
        let mut config = match form {
            FolderForm::Hf => hf::write(self.architecture, self.tokenizer)?,
            _ => match self.architecture {
                Architecture::Clip(config) => {
                    let preprocess = self.processor.map(ImageProcessor::to_open_clip).transpose()?;
                    json!({ "model_cfg": open_clip::write(config)?, "preprocess_cfg": preprocess })
                }
                _ => return Err(Error::Model("a tower alone has no form in open_clip: keep it in Hugging Face's".to_owned())),
            },
        };
        if dtype == StoredType::Int8 {
            // Readers that do not know it refuse the folder instead of taking integers for weights.
            config["quantization_config"] = json!({ "quant_method": "mm-int8" });
        }
        match form {
            FolderForm::Hf => {
                write(&folder.join("model.safetensors"), &tensors)?;
                write_json(&folder.join("config.json"), &config)?;
                if let Some(processor) = self.processor {
                    processor.save(&folder.join("preprocessor_config.json"))?;
                }
            }
            FolderForm::OpenClip => {
                write(&folder.join("open_clip_model.safetensors"), &tensors)?;
                write_json(&folder.join(OPEN_CLIP_CONFIG), &config)?;
            }
            FolderForm::Openai => write(&folder.join("model.safetensors"), &tensors)?,
        }
        if let (Some(tokenizer), true) = (self.tokenizer, form != FolderForm::Openai) {
            tokenizer.save(folder)?;
        }
        Ok(())
    }

    /// What a lone tower's names begin with here and not in its own class of transformers.
    fn bare_root(&self) -> Option<&'static str> {
        match self.architecture {
            Architecture::Image { tower, projection: None } => Some(image_root(tower)),
            Architecture::Text { projection: None, .. } => Some(TEXT_ROOT),
            _ => None,
        }
    }
}

impl StoredType {
    fn convert(self, tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
        let kind = match self {
            Self::F32 => Kind::Float,
            Self::F16 => Kind::Half,
            Self::Bf16 => Kind::BFloat16,
            Self::Int8 => return quantise(tensors),
        };
        tensors.into_iter().map(|(name, tensor)| (name, tch::no_grad(|| tensor.to_kind(kind)))).collect()
    }
}

fn at(file: &Path, error: Error) -> Error {
    match error {
        Error::Model(problem) => Error::Folder { path: file.to_owned(), problem },
        error => error,
    }
}

fn read_json(file: &Path) -> Result<Value> {
    let text = std::fs::read(file).map_err(|source| mm_core::Error::io("read", file, source))?;
    serde_json::from_slice(&text).map_err(|error| Error::Folder { path: file.to_owned(), problem: error.to_string() })
}

fn write_json(file: &Path, json: &Value) -> Result<()> {
    Ok(write_atomically(file, |to| {
        std::fs::write(to, format!("{json:#}\n")).map_err(|source| mm_core::Error::io("write", file, source))
    })?)
}
