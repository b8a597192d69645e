//! A model folder: where its config, weights, tokenizer files and processor files are.

use crate::checkpoint::Weights;
use crate::hub::{self, SENTENCE_CLIP};
use crate::lora::ADAPTER_CONFIG_FILE;
use crate::{Error, Result, read_json};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// The config that transformers writes.
pub const CONFIG_FILE: &str = "config.json";

/// The config that open_clip writes.
pub const OPEN_CLIP_CONFIG_FILE: &str = "open_clip_config.json";

/// The image preprocessing that transformers writes.
pub const PROCESSOR_CONFIG_FILE: &str = "preprocessor_config.json";

/// The weights of a training checkpoint, and their exponential moving average.
const CHECKPOINT_WEIGHTS: &str = "model.safetensors";
const CHECKPOINT_AVERAGES: &str = "ema.safetensors";
/// The weights that do not train, beside either.
const CHECKPOINT_FROZEN: &str = "frozen.safetensors";

/// The folder of a model: of a transformers model, an open_clip model, one part of a diffusers pipeline, or a
/// training checkpoint of this project. Opening reads no file; each method names the file it reads.
///
/// ```no_run
/// use mm_core::hf::HfFolder;
///
/// let folder = HfFolder::open("openai/clip-vit-base-patch32")?;
/// let config: serde_json::Value = folder.config()?;
/// let weights = folder.weights("model")?;
/// # Ok::<(), mm_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HfFolder {
    path: PathBuf,
}

impl HfFolder {
    /// The folder of `model`, a path or a hub name (see [`Hub::resolve`](crate::hub::Hub::resolve)). A CLIP
    /// that sentence-transformers saved is in a folder below.
    ///
    /// # Errors
    /// The model cannot be found, or the folder is not of a model: of a training run, of a checkpoint without
    /// a config, or of a whole diffusers pipeline.
    pub fn open(model: &str) -> Result<Self> {
        Self { path: hub::resolve(model)? }.locate()
    }

    /// The folder at `path`, as it is.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file `name`, present or not.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the folder has an entry `name`.
    pub fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    /// `config.json`.
    ///
    /// # Errors
    /// The file cannot be read, or is not JSON of the fields of `T`.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        read_json(&self.file(CONFIG_FILE))
    }

    /// The tensors of `STEM.safetensors` or of its shards, mapped; see [`Weights::open_folder`].
    ///
    /// # Errors
    /// As [`Weights::open_folder`].
    pub fn weights(&self, stem: &str) -> Result<Weights> {
        Weights::open_folder(&self.path, stem)
    }

    /// Whether this is a checkpoint of a training run.
    pub fn is_checkpoint(&self) -> bool {
        ["state.json", "optimizer.safetensors"].iter().all(|name| self.has(name))
    }

    /// The weights of a checkpoint of a training run: the moving average where the run keeps one and
    /// `averaged` is set, else those of the last step.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn checkpoint_weights(&self, averaged: bool) -> Result<Weights> {
        let averaged = averaged && self.has(CHECKPOINT_AVERAGES);
        let mut weights =
            Weights::open(&self.file(if averaged { CHECKPOINT_AVERAGES } else { CHECKPOINT_WEIGHTS }))?;
        if self.has(CHECKPOINT_FROZEN) {
            weights.add(&self.file(CHECKPOINT_FROZEN))?;
        }
        Ok(weights)
    }

    /// The folder of the tokenizer files: this one, or in a diffusers pipeline the one of the text encoder.
    pub fn tokenizer_folder(&self) -> PathBuf {
        match self.pipeline_part() {
            Some("text_encoder") => self.path.with_file_name("tokenizer"),
            Some("text_encoder_2") => self.path.with_file_name("tokenizer_2"),
            _ => self.path.clone(),
        }
    }

    /// The folder of `preprocessor_config.json`: this one, or in a diffusers pipeline `feature_extractor`.
    pub fn processor_folder(&self) -> PathBuf {
        match self.pipeline_part() {
            Some("image_encoder") => self.path.with_file_name("feature_extractor"),
            _ => self.path.clone(),
        }
    }

    /// The name of the folder, if it is one part of a diffusers pipeline.
    fn pipeline_part(&self) -> Option<&str> {
        let name = self.path.file_name()?.to_str()?;
        self.path.with_file_name("model_index.json").exists().then_some(name)
    }

    /// The folder of the model itself.
    fn locate(self) -> Result<Self> {
        if self.has(CONFIG_FILE) || self.has(OPEN_CLIP_CONFIG_FILE) {
            return Ok(self);
        }
        let problem = if self.is_checkpoint() && self.has(ADAPTER_CONFIG_FILE) {
            "is a checkpoint of adapters (LoRA) without their base model: \
             the run's folder model/ has them merged once it is done"
                .to_owned()
        } else if self.is_checkpoint() {
            "is a checkpoint without config.json, from before checkpoints had one: \
             resume the run, whose next checkpoint has it"
                .to_owned()
        } else if self.has("config.toml") && self.has("checkpoints") {
            let name = if self.has("model") { "model" } else { "checkpoints/latest" };
            format!("is a run's folder: its model is {}", self.file(name).display())
        } else if self.has("model_index.json") {
            self.pipeline_problem()
        } else if self.has(SENTENCE_CLIP) {
            return Ok(Self { path: self.file(SENTENCE_CLIP) });
        } else {
            // Bare weights, or nothing: opening the weights gives the error.
            return Ok(self);
        };
        Err(Error::File { path: self.path, problem })
    }

    fn pipeline_problem(&self) -> String {
        let models = ["text_encoder", "image_encoder", "text_encoder_2"].map(|name| self.file(name));
        let found: Vec<String> =
            models.iter().filter(|model| model.is_dir()).map(|model| model.display().to_string()).collect();
        if found.is_empty() {
            return "is a pipeline of diffusers without a text or image encoder".to_owned();
        }
        format!("is a pipeline of diffusers: name one of its models, {}", found.join(" or "))
    }
}
