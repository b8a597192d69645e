//! The folder of a model that answers questions, in the formats of transformers and of this project.
//!
//! Each family has a file, as `blip.rs`, that reads its config from a `config.json` and writes it.
//! Weights have the names of the family. A new family is another such file, a variant of [`VqaConfig`], and
//! of [`VqaProcessor`] where its images are another's.

mod blip;
mod co_attention;
mod labels;
mod parts;
mod vilt;

pub use co_attention::ClassifierConfig;
pub use parts::VqaParts;

use crate::blip::BlipVqaConfig;
use crate::vilt::ViltConfig;
use crate::{Error, Result};
use mm_core::checkpoint::{StoredType, TensorLayout, Weights, stored, write};
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_core::write_json;
use mm_text::decoder::drop_copies;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// The config of a model that answers questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VqaConfig {
    /// A co-attention model with its answers, in a format of this project.
    CoAttention(ClassifierConfig),
    /// transformers' `BlipForQuestionAnswering`.
    Blip(BlipVqaConfig),
    /// transformers' `ViltForQuestionAnswering`.
    Vilt(ViltConfig),
}

/// The folder of a model that answers questions, with its config read and its weights mapped.
#[derive(Debug)]
pub struct VqaFolder {
    /// The folder.
    pub folder: HfFolder,
    /// The config of the model that it holds.
    pub config: VqaConfig,
    weights: Weights,
    layout: TensorLayout,
    json: Value,
}

impl VqaFolder {
    /// Whether the folder or the hub name `model` has the config of a model that answers questions. Errors of
    /// a model that cannot be found or read are those of opening it.
    pub fn is_vqa(model: &str) -> bool {
        let config: mm_core::Result<Value> = HfFolder::open(model).and_then(|folder| folder.config());
        config.is_ok_and(|config| {
            let class = config["architectures"][0].as_str().unwrap_or_default();
            match config["model_type"].as_str() {
                Some(vilt::MODEL_TYPE | co_attention::MODEL_TYPE) => true,
                Some(blip::MODEL_TYPE) => blip::is_for_questions(class),
                _ => false,
            }
        })
    }

    /// Reads the config in the folder or of the hub name `model` and maps its weights. Of a checkpoint of a
    /// training run these are the moving averages where the run keeps any.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture does not answer
    /// questions.
    pub fn open(model: &str) -> Result<Self> {
        Self::open_folder(HfFolder::open(model)?, true)
    }

    /// As [`VqaFolder::open`], with the weights of the last step of a checkpoint.
    ///
    /// # Errors
    /// As [`VqaFolder::open`].
    pub fn open_last_step(checkpoint: &Path) -> Result<Self> {
        Self::open_folder(HfFolder::at(checkpoint), false)
    }

    fn open_folder(folder: HfFolder, averaged: bool) -> Result<Self> {
        let json: Value = folder.config()?;
        let config = match json["model_type"].as_str() {
            Some(blip::MODEL_TYPE) => blip::read(&json).map(VqaConfig::Blip),
            Some(vilt::MODEL_TYPE) => vilt::read(&json).map(VqaConfig::Vilt),
            Some(co_attention::MODEL_TYPE) => co_attention::read(&json).map(VqaConfig::CoAttention),
            other => Err(Error::Model(format!(
                "model_type is {}: models that answer questions are of {}, {} and {}",
                other.unwrap_or("missing"),
                blip::MODEL_TYPE,
                vilt::MODEL_TYPE,
                co_attention::MODEL_TYPE
            ))),
        }
        .map_err(|error| error.at(&folder.file(CONFIG_FILE)))?;
        let (weights, layout) = if folder.is_checkpoint() {
            (folder.checkpoint_weights(averaged)?, TensorLayout::AS_IS)
        } else {
            let mut weights = folder.weights("model")?;
            drop_copies(&mut weights);
            (weights, TensorLayout::HF)
        };
        Ok(Self { folder, config, weights, layout, json })
    }

    /// Tokenizer, preprocessing, answers and defaults of generation.
    ///
    /// # Errors
    /// A file is missing, malformed, or does not fit the model.
    pub fn parts(&self) -> Result<VqaParts> {
        VqaParts::open(&self.folder, &self.config, &self.json)
    }

    /// Builds the model that `make` makes from the config on `vs`, and fills it.
    ///
    /// # Errors
    /// Config and weights do not match.
    pub fn build<T>(&self, vs: &VarStore, make: impl Fn(&tch::nn::Path) -> Result<T>) -> Result<T> {
        self.weights.build(vs, &self.layout, make)
    }

    /// Builds the model as [`VqaFolder::build`], but for the last layer of a ViLT's classifier, which keeps
    /// its initial weights: it is of other answers than the checkpoint's.
    ///
    /// # Errors
    /// As [`VqaFolder::build`].
    pub(crate) fn build_with_new_classifier<T>(
        &mut self,
        vs: &VarStore,
        make: impl Fn(&tch::nn::Path) -> Result<T>,
    ) -> Result<T> {
        let model = make(&vs.root())?;
        self.weights.retain(|name| !name.starts_with(vilt::ANSWERS));
        let is_kept = |(name, _): &(String, Tensor)| !name.starts_with(vilt::ANSWERS);
        let variables: Vec<_> = vs.variables().into_iter().filter(is_kept).collect();
        self.weights.fill(variables, &self.layout)?;
        Ok(model)
    }

    /// The weights, without the copies that savers write of tied ones.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
}

impl VqaConfig {
    /// Writes config, weights and `parts` to the existing `folder`. `variables` are named as in the model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(
        &self,
        variables: Vec<(String, Tensor)>,
        parts: &VqaParts,
        folder: &Path,
        dtype: StoredType,
    ) -> Result<()> {
        write(&folder.join("model.safetensors"), &dtype.convert(stored(variables, &TensorLayout::HF)))?;
        self.save_config(parts, folder, dtype)
    }

    /// [`VqaConfig::save`] without the weights.
    ///
    /// # Errors
    /// As [`VqaConfig::save`].
    pub fn save_config(&self, parts: &VqaParts, folder: &Path, dtype: StoredType) -> Result<()> {
        let mut config = match self {
            Self::Blip(blip) => blip::write(blip),
            Self::Vilt(vilt) => vilt::write(vilt),
            Self::CoAttention(config) => co_attention::write(config),
        };
        config["dtype"] = dtype.hf_name().into();
        write_json(&folder.join(CONFIG_FILE), &config)?;
        parts.save(self, folder)
    }

    /// The model in a few words.
    pub fn describe(&self) -> String {
        match self {
            Self::Blip(blip) => blip.describe(),
            Self::Vilt(vilt) => vilt.describe(),
            Self::CoAttention(config) => config.model.describe(),
        }
    }
}
