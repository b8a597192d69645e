//! The folder of a captioner, in the formats of transformers and of this project.
//!
//! `blip.rs` and `encoder_decoder.rs` read and write transformers' configs, `prefix.rs` this project's of a
//! ClipCap, whose authors have none. Weights have the names of the family in all of them.

mod blip;
mod encoder_decoder;
mod prefix;

#[cfg(test)]
pub(crate) use prefix::clip_prefix_config;

use crate::ppo::is_of_value_head;
use crate::{Captioner, CaptionerConfig, CaptionerVariant, Error, Result};
use mm_core::checkpoint::{StoredType, TensorLayout, Weights, hf_names, stored, write};
use mm_core::hf::{CONFIG_FILE, HfFolder, PROCESSOR_CONFIG_FILE};
use mm_core::{read_json, write_json};
use mm_text::Tokenizer;
use mm_text::decoder::{GENERATION_CONFIG_FILE, GPT2_LAYOUT, SpecialTokens, drop_copies};
use mm_text::generate::GenerationConfig;
use mm_vision::ImageProcessor;
use serde_json::Value;
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// What a captioner's config holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The model.
    pub model: CaptionerConfig,
    /// Its special tokens.
    pub tokens: SpecialTokens,
}

/// A captioner's folder with its config read and its weights mapped.
#[derive(Debug)]
pub struct CaptionerFolder {
    /// The folder.
    pub folder: HfFolder,
    /// The model that it holds.
    pub description: Description,
    weights: Weights,
    layout: TensorLayout,
    config: Value,
}

/// The `model_type`s of captioners.
const MODEL_TYPES: [&str; 3] = ["blip", "vision-encoder-decoder", prefix::MODEL_TYPE];

/// The layout of the weights of every captioner.
const LAYOUT: TensorLayout = GPT2_LAYOUT;

impl CaptionerFolder {
    /// Whether the folder or the hub name `model` has the config of a captioner. Errors of a model that
    /// cannot be found or read are those of opening it.
    pub fn is_captioner(model: &str) -> bool {
        let config: mm_core::Result<Value> = HfFolder::open(model).and_then(|folder| folder.config());
        config.is_ok_and(|config| {
            let model_type = config["model_type"].as_str();
            // A BLIP that answers questions has the same model_type.
            let class = config["architectures"][0].as_str().unwrap_or_default();
            model_type.is_some_and(|model_type| MODEL_TYPES.contains(&model_type))
                && !class.ends_with("QuestionAnswering")
        })
    }

    /// Reads the config in the folder or of the hub name `model` and maps its weights. Of a checkpoint of a
    /// training run these are the moving averages where the run keeps any.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture is not that of a
    /// captioner.
    pub fn open(model: &str) -> Result<Self> {
        Self::open_folder(HfFolder::open(model)?, true)
    }

    /// As [`CaptionerFolder::open`], with the weights of the last step of a checkpoint.
    ///
    /// # Errors
    /// As [`CaptionerFolder::open`].
    pub(crate) fn open_last_step(checkpoint: &Path) -> Result<Self> {
        Self::open_folder(HfFolder::at(checkpoint), false)
    }

    fn open_folder(folder: HfFolder, averaged: bool) -> Result<Self> {
        let file = folder.file(CONFIG_FILE);
        let config: Value = folder.config()?;
        let is_checkpoint = folder.is_checkpoint();
        let (mut weights, layout) = if is_checkpoint {
            let mut weights = folder.checkpoint_weights(averaged)?;
            weights.retain(|name| !is_of_value_head(name));
            (weights, TensorLayout::AS_IS)
        } else {
            (folder.weights("model")?, LAYOUT)
        };
        let generation = read_if_there(&folder, GENERATION_CONFIG_FILE)?;
        let description = match config["model_type"].as_str() {
            Some("blip") => blip::read(&config),
            Some("vision-encoder-decoder") => encoder_decoder::read(&config, &generation, &mut weights),
            Some(prefix::MODEL_TYPE) => prefix::read(&config),
            other => Err(Error::Model(format!(
                "model_type is {}: captioners are of blip, vision-encoder-decoder and {}",
                other.unwrap_or("missing"),
                prefix::MODEL_TYPE
            ))),
        }
        .map_err(|error| error.at(&file))?;
        if !is_checkpoint {
            drop_copies(&mut weights);
            if let CaptionerVariant::Prefix(_) = description.model.variant {
                weights.add(&folder.file(prefix::CLIP_FILE))?;
            }
        }
        Ok(Self { folder, description, weights, layout, config })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Its files are missing or malformed, it does not fit the decoder, or has not the end token that the
    /// config names.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let Description { model, tokens } = &self.description;
        Ok(tokens.open_tokenizer(&self.folder, &model.decoder)?)
    }

    /// The preprocessing from images to `pixel_values` of the image tower's size.
    ///
    /// # Errors
    /// The file of the preprocessing is missing, malformed or of another size than the tower's.
    pub fn processor(&self) -> Result<ImageProcessor> {
        let tower = &self.description.model.image;
        let folder = self.folder.processor_folder();
        let (file, processor) = ImageProcessor::from_folder(&folder, tower.processor_class())?;
        let (size, (width, height)) = (tower.image_size() as u32, processor.output_size());
        if (width, height) == (size, size) {
            return Ok(processor);
        }
        let problem = format!("images become {width} x {height} pixels, but the tower takes {size} x {size}");
        Err(Error::Folder { path: file, problem })
    }

    /// The model's defaults of generation, for prompts of the begin token alone.
    ///
    /// # Errors
    /// The file is malformed, or a value out of range.
    pub fn generation(&self) -> Result<GenerationConfig> {
        let prompt_length = usize::from(self.description.tokens.start.is_some());
        Ok(GenerationConfig::from_folder(&self.folder, &self.config, prompt_length)?)
    }

    /// Builds the captioner on `vs` and fills it.
    ///
    /// # Errors
    /// Config and weights do not match.
    pub fn build(&self, vs: &VarStore) -> Result<Captioner> {
        self.weights.build(vs, &self.layout, |path| Captioner::new(path, &self.description.model))
    }

    /// The weights, without the copies that savers write of tied ones.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The label smoothing that the config trains with; 0 if it has none.
    pub fn label_smoothing(&self) -> f64 {
        self.config["text_config"]["label_smoothing"].as_f64().unwrap_or(0.0)
    }
}

impl Description {
    /// Writes config, weights, preprocessing, tokenizer and defaults of generation to the existing `folder`.
    /// `variables` are named as in [`Captioner`].
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(
        &self,
        variables: Vec<(String, Tensor)>,
        tokenizer: &Tokenizer,
        processor: &ImageProcessor,
        generation: &GenerationConfig,
        folder: &Path,
        dtype: StoredType,
    ) -> Result<()> {
        let tensors = dtype.convert(stored(variables, &LAYOUT));
        let is_of_clip = |name: &str| prefix::is_of_clip(name);
        if let CaptionerVariant::Prefix(_) = self.model.variant {
            let (clip, own): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(name, _)| is_of_clip(name));
            let clip_file = folder.join(prefix::CLIP_FILE);
            prefix::write_clip_folder(&clip_file, &self.model, processor)?;
            write(&clip_file, &clip)?;
            write(&folder.join("model.safetensors"), &own)?;
        } else {
            write(&folder.join("model.safetensors"), &tensors)?;
        }
        self.save_config(tokenizer, processor, generation, folder, dtype)
    }

    /// [`Description::save`] without the weights.
    ///
    /// # Errors
    /// As [`Description::save`].
    pub fn save_config(
        &self,
        tokenizer: &Tokenizer,
        processor: &ImageProcessor,
        generation: &GenerationConfig,
        folder: &Path,
        dtype: StoredType,
    ) -> Result<()> {
        let mut config = match self.model.variant {
            CaptionerVariant::Blip => blip::write(self)?,
            CaptionerVariant::EncoderDecoder => encoder_decoder::write(self),
            CaptionerVariant::Prefix(prefix) => prefix::write(self, &prefix),
        };
        config["dtype"] = dtype.hf_name().into();
        write_json(&folder.join(CONFIG_FILE), &config)?;
        write_json(&folder.join(PROCESSOR_CONFIG_FILE), &processor.to_json()?)?;
        self.tokens.write_generation(generation, folder)?;
        tokenizer.save(folder, &["input_ids", "attention_mask"])?;
        Ok(())
    }
}

/// A JSON file of `folder`, or null.
fn read_if_there(folder: &HfFolder, name: &str) -> Result<Value> {
    if folder.has(name) { Ok(read_json(&folder.file(name))?) } else { Ok(Value::Null) }
}

/// The names of the checkpoint's linear layers, for LoRA.
pub(crate) const NAMES: fn(&str) -> Vec<String> = hf_names;
