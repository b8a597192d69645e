//! The folder of a model, in the formats of transformers and of this project.

mod co_attention;

use crate::metrics::baselines::Baselines;
use crate::{Answers, Error, LossKind, Result, VqaModel, VqaModelConfig};
use mm_core::checkpoint::{StoredType, TensorLayout, Weights, stored, write};
use mm_core::hf::{CONFIG_FILE, HfFolder, PROCESSOR_CONFIG_FILE};
use mm_core::{read_json, write_json};
use mm_text::Tokenizer;
use mm_vision::ImageProcessor;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tch::Tensor;
use tch::nn::VarStore;

/// What a model's config holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The model.
    pub model: VqaModelConfig,
    /// The answers that it can give.
    pub answers: Arc<Answers>,
    /// The loss that its scores are trained with, which says how they become probabilities.
    pub scores: LossKind,
}

/// A model's folder with its config read and its weights mapped.
#[derive(Debug)]
pub struct VqaFolder {
    /// The folder.
    pub folder: HfFolder,
    /// The model that it holds.
    pub description: Description,
    weights: Weights,
    layout: TensorLayout,
}

/// The answers that are right without looking, of the training set.
pub(crate) const BASELINES_FILE: &str = "answer_baselines.json";

/// The layout of the weights of every model.
const LAYOUT: TensorLayout = TensorLayout::HF;

impl VqaFolder {
    /// Whether the folder or the hub name `model` has the config of a question answering model. Errors of a
    /// model that cannot be found or read are those of opening it.
    pub fn is_vqa(model: &str) -> bool {
        let config: mm_core::Result<Value> = HfFolder::open(model).and_then(|folder| folder.config());
        config.is_ok_and(|config| config["model_type"] == co_attention::MODEL_TYPE)
    }

    /// Reads the config in the folder or of the hub name `model` and maps its weights. Of a checkpoint of a
    /// training run these are the moving averages where the run keeps any.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture is not offered.
    pub fn open(model: &str) -> Result<Self> {
        Self::open_folder(HfFolder::open(model)?, true)
    }

    /// As [`VqaFolder::open`], with the weights of the last step of a checkpoint.
    ///
    /// # Errors
    /// As [`VqaFolder::open`].
    pub(crate) fn open_last_step(checkpoint: &Path) -> Result<Self> {
        Self::open_folder(HfFolder::at(checkpoint), false)
    }

    fn open_folder(folder: HfFolder, averaged: bool) -> Result<Self> {
        let file = folder.file(CONFIG_FILE);
        let config: Value = folder.config()?;
        let (weights, layout) = if folder.is_checkpoint() {
            (folder.checkpoint_weights(averaged)?, TensorLayout::AS_IS)
        } else {
            (folder.weights("model")?, LAYOUT)
        };
        let description = match config["model_type"].as_str() {
            Some(co_attention::MODEL_TYPE) => co_attention::read(&config),
            other => Err(Error::Model(format!(
                "model_type is {}: questions are answered by {}",
                other.unwrap_or("missing"),
                co_attention::MODEL_TYPE
            ))),
        }
        .map_err(|error| error.at(&file))?;
        Ok(Self { folder, description, weights, layout })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Its files are missing or malformed.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(Tokenizer::from_dir(&self.folder.tokenizer_folder())?)
    }

    /// The preprocessing from images to `pixel_values`.
    ///
    /// # Errors
    /// The file of the preprocessing is missing or malformed.
    pub fn processor(&self) -> Result<ImageProcessor> {
        let VqaModelConfig::CoAttention(model) = &self.description.model;
        let folder = self.folder.processor_folder();
        Ok(ImageProcessor::from_folder(&folder, model.image.processor_class())?.1)
    }

    /// The answers that are right without looking at the image, where the folder has them.
    ///
    /// # Errors
    /// The file is malformed.
    pub fn baselines(&self) -> Result<Option<Baselines>> {
        let has = self.folder.has(BASELINES_FILE);
        Ok(if has { Some(read_json(&self.folder.file(BASELINES_FILE))?) } else { None })
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Builds the model on `vs` and fills it.
    ///
    /// # Errors
    /// Config and weights do not match.
    pub fn build(&self, vs: &VarStore) -> Result<VqaModel> {
        self.weights.build(vs, &self.layout, |path| VqaModel::new(path, &self.description.model))
    }
}

impl Description {
    /// Writes config, weights, preprocessing and tokenizer to the existing `folder`. `variables` are named as
    /// in the model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(
        &self,
        variables: Vec<(String, Tensor)>,
        tokenizer: &Tokenizer,
        processor: &ImageProcessor,
        folder: &Path,
        dtype: StoredType,
    ) -> Result<()> {
        write(&folder.join("model.safetensors"), &dtype.convert(stored(variables, &LAYOUT)))?;
        self.save_config(tokenizer, processor, folder, dtype)
    }

    /// [`Description::save`] without the weights.
    ///
    /// # Errors
    /// As [`Description::save`].
    pub fn save_config(
        &self,
        tokenizer: &Tokenizer,
        processor: &ImageProcessor,
        folder: &Path,
        dtype: StoredType,
    ) -> Result<()> {
        let mut config = match &self.model {
            VqaModelConfig::CoAttention(model) => co_attention::write(self, model)?,
        };
        config["dtype"] = dtype.hf_name().into();
        write_json(&folder.join(CONFIG_FILE), &config)?;
        write_json(&folder.join(PROCESSOR_CONFIG_FILE), &processor.to_json()?)?;
        tokenizer.save(folder, &["input_ids", "attention_mask"])?;
        Ok(())
    }
}

/// The answers of `id2label`, whose keys are the numbers of the answers as texts.
fn answers(config: &Value) -> Result<Answers> {
    let labels = config["id2label"].as_object();
    let labels = labels.ok_or_else(|| Error::Model("id2label is missing: it has the answers".to_owned()))?;
    let number = |number: usize| {
        let label = labels.get(&number.to_string()).and_then(Value::as_str);
        label.map(str::to_owned).ok_or_else(|| Error::Model(format!("id2label has no answer {number}")))
    };
    Answers::new((0..labels.len()).map(number).collect::<Result<_>>()?)
}

/// `answers` as `id2label`.
fn labels(answers: &Answers) -> Value {
    (0..)
        .zip(answers.all())
        .map(|(number, answer): (usize, _)| (number.to_string(), answer.clone()))
        .collect()
}
