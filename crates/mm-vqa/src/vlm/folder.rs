//! The folder of a vision-language model, in transformers' format.

use super::config::VlmConfig;
use super::processor::VlmProcessor;
use super::{checkpoint, hf};
use crate::{Error, Result};
use mm_core::checkpoint::{StoredType, TensorLayout, Weights, stored, write};
use mm_core::hf::{CONFIG_FILE, HfFolder, PROCESSOR_CONFIG_FILE};
use mm_core::{read_json, write_json};
use mm_text::decoder::{GENERATION_CONFIG_FILE, SpecialTokens, token_id};
use mm_text::generate::GenerationConfig;
use mm_text::{ChatTemplate, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tch::Tensor;
use tch::nn::VarStore;

/// The file of transformers' processors of texts and images.
const WHOLE_PROCESSOR_FILE: &str = "processor_config.json";

/// The folder of a vision-language model with its config read and its weights mapped.
#[derive(Debug)]
pub struct VlmFolder {
    /// The folder.
    pub folder: HfFolder,
    /// The config of the model that it holds.
    pub config: VlmConfig,
    weights: Weights,
    layout: TensorLayout,
    json: Value,
}

/// What stands beside the config and the weights.
#[derive(Clone, Debug)]
pub struct VlmParts {
    /// From texts to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// From images and texts with placeholders to tiles and tokens.
    pub processor: VlmProcessor,
    /// From messages to texts; none for a model without a template.
    pub template: Option<Arc<ChatTemplate>>,
    /// The defaults of generation.
    pub generation: GenerationConfig,
    /// The tokens that end a text.
    pub eos: Vec<u32>,
    /// Padding.
    pub pad: u32,
}

impl VlmFolder {
    /// Whether the folder or the hub name `model` has the config of a vision-language model. Errors of a
    /// model that cannot be found or read are those of opening it.
    pub fn is_vlm(model: &str) -> bool {
        let config: mm_core::Result<Value> = HfFolder::open(model).and_then(|folder| folder.config());
        config.is_ok_and(|config| hf::family(&config).is_ok())
    }

    /// Reads the config in the folder or of the hub name `model` and maps its weights. Of a checkpoint of a
    /// training run these are the moving averages where the run keeps any.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture is not supported.
    pub fn open(model: &str) -> Result<Self> {
        Self::open_folder(HfFolder::open(model)?, true)
    }

    /// As [`VlmFolder::open`], with the weights of the last step of a checkpoint.
    ///
    /// # Errors
    /// As [`VlmFolder::open`].
    pub fn open_last_step(checkpoint: &Path) -> Result<Self> {
        Self::open_folder(HfFolder::at(checkpoint), false)
    }

    fn open_folder(folder: HfFolder, averaged: bool) -> Result<Self> {
        let json: Value = folder.config()?;
        let mut config = hf::read(&json).map_err(|error| error.at(&folder.file(CONFIG_FILE)))?;
        let (weights, layout) = if folder.is_checkpoint() {
            (folder.checkpoint_weights(averaged)?, TensorLayout::AS_IS)
        } else {
            let mut weights = folder.weights("model")?;
            checkpoint::map(&mut weights, &mut config)?;
            (weights, TensorLayout::HF)
        };
        Ok(Self { folder, config, weights, layout, json })
    }

    /// Tokenizer, preprocessing, chat template and defaults of generation.
    ///
    /// # Errors
    /// A file is missing, malformed, or does not fit the model.
    pub fn parts(&self) -> Result<VlmParts> {
        let path = self.folder.tokenizer_folder();
        let tokenizer = Tokenizer::for_decoder(&path)?;
        let text = &self.config.text;
        text.check_tokenizer(&tokenizer).map_err(|error| Error::from(error).at(&path))?;
        let (eos, pad) = self.end_tokens(&tokenizer)?;
        let (file, images) = VlmProcessor::read_images(&self.folder, self.config.family)?;
        let processor =
            VlmProcessor::new(&self.config, images, &tokenizer, &eos).map_err(|error| error.at(&file))?;
        let template = ChatTemplate::from_folder(self.folder.path())?;
        Ok(VlmParts {
            generation: GenerationConfig::from_folder(&self.folder, &self.json, 0)?,
            tokenizer: Arc::new(tokenizer),
            processor,
            template: template.map(Arc::new),
            eos,
            pad,
        })
    }

    /// The end tokens and the padding of `generation_config.json`, else of the config, else of its text
    /// model, else of the tokenizer.
    fn end_tokens(&self, tokenizer: &Tokenizer) -> Result<(Vec<u32>, u32)> {
        let file = self.folder.file(GENERATION_CONFIG_FILE);
        let generation: Value = if file.exists() { read_json(&file)? } else { Value::Null };
        let configs = [&generation, &self.json, &self.json["text_config"]];
        let eos = configs.into_iter().map(|config| end_tokens(&config["eos_token_id"]));
        let eos = eos.into_iter().find(|eos| !eos.is_empty()).unwrap_or_else(|| vec![tokenizer.eos_id()]);
        if let Some(id) = eos.iter().find(|&&id| tokenizer.token(id).is_none()) {
            let problem = format!("the tokenizer has no token {id}, with which texts end in {CONFIG_FILE}");
            return Err(Error::Folder { path: self.folder.tokenizer_folder(), problem });
        }
        let pad = configs.into_iter().find_map(|config| token_id(config, "pad_token_id"));
        Ok((eos, pad.unwrap_or_else(|| tokenizer.pad_id())))
    }

    /// Builds the model that `make` makes from the config on `vs`, and fills it.
    ///
    /// # Errors
    /// Config and weights do not match.
    pub fn build<T>(&self, vs: &VarStore, make: impl Fn(&tch::nn::Path) -> Result<T>) -> Result<T> {
        self.weights.build(vs, &self.layout, make)
    }

    /// The weights, under the names of the model's parameters and without copies of tied ones.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// The end tokens of a config: none, one, or a list.
fn end_tokens(ids: &Value) -> Vec<u32> {
    let ids = ids.as_array().map_or_else(|| std::slice::from_ref(ids), Vec::as_slice);
    ids.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
}

impl VlmConfig {
    /// Writes config, weights and `parts` to the existing `folder`, as transformers writes and reads them.
    /// `variables` are named as in the model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(
        &self,
        variables: Vec<(String, Tensor)>,
        parts: &VlmParts,
        folder: &Path,
        dtype: StoredType,
    ) -> Result<()> {
        write(&folder.join("model.safetensors"), &dtype.convert(stored(variables, &TensorLayout::HF)))?;
        self.save_config(parts, folder, dtype)
    }

    /// [`VlmConfig::save`] without the weights.
    ///
    /// # Errors
    /// As [`VlmConfig::save`].
    pub fn save_config(&self, parts: &VlmParts, folder: &Path, dtype: StoredType) -> Result<()> {
        let mut config = hf::write(self);
        config["dtype"] = dtype.hf_name().into();
        write_json(&folder.join(CONFIG_FILE), &config)?;
        let VlmParts { processor, tokenizer, template, .. } = parts;
        write_json(&folder.join(PROCESSOR_CONFIG_FILE), &processor.to_json()?)?;
        let whole = hf::write_processor(self, processor.image_token(), processor.tile_tokens());
        write_json(&folder.join(WHOLE_PROCESSOR_FILE), &whole)?;
        tokenizer.save(folder, &["input_ids", "attention_mask"])?;
        if let Some(template) = template {
            template.save(folder)?;
        }
        let end = parts.eos.first().copied().unwrap_or_default();
        let tokens = SpecialTokens { start: None, end, pad: parts.pad };
        tokens.write_generation(&parts.generation, folder)?;
        if parts.eos.len() > 1 {
            let file = folder.join(GENERATION_CONFIG_FILE);
            let mut generation: Value = read_json(&file)?;
            generation["eos_token_id"] = json!(parts.eos);
            write_json(&file, &generation)?;
        }
        Ok(())
    }
}
