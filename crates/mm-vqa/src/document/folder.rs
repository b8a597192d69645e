//! The folder of a model that reads documents: transformers' `VisionEncoderDecoderModel` of a DonutSwin and
//! an MBart.

use super::loss::CHARACTER_HEAD;
use super::{DocumentModel, DocumentModelConfig};
use crate::{Error, Result};
use mm_core::checkpoint::{StoredType, TensorLayout, Weights, stored, write};
use mm_core::hf::{CONFIG_FILE, HfFolder, PROCESSOR_CONFIG_FILE};
use mm_core::{read_json, write_json};
use mm_text::Tokenizer;
use mm_text::decoder::{
    GENERATION_CONFIG_FILE, MBartDecoderConfig, SpecialTokens, TextDecoderSpec, drop_copies, token_id,
};
use mm_text::generate::GenerationConfig;
use mm_vision::{DocumentProcessor, SwinConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// transformers' `model_type`, and those of the encoder and the decoder.
const MODEL_TYPE: &str = "vision-encoder-decoder";
const ENCODER_TYPE: &str = "donut-swin";
const DECODER_TYPE: &str = "mbart";

/// A key of this project, which transformers ignores: what the model was trained for.
const TRAINED_FOR: &str = "mm_document";

/// The token embeddings, which grow with the vocabulary.
const EMBEDDINGS: &str = "decoder.model.decoder.embed_tokens.weight";

/// What a model was trained for, as `config.json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrainedFor {
    /// The token that documents begin with, as `<s_invoice>`.
    pub prompt: String,
    /// The schema of the documents, as the data set names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// The folder of a model that reads documents, with its config read and its weights mapped.
#[derive(Debug)]
pub struct DocumentFolder {
    /// The folder.
    pub folder: HfFolder,
    /// The config of the model that it holds.
    pub config: DocumentModelConfig,
    /// Begin, end and padding of texts.
    pub tokens: SpecialTokens,
    pub(super) trained_for: Option<TrainedFor>,
    weights: Weights,
    layout: TensorLayout,
    json: Value,
}

impl DocumentFolder {
    /// Whether the folder or the hub name `model` has the config of a model that reads documents. Errors of a
    /// model that cannot be found or read are those of opening it.
    pub fn is_document(model: &str) -> bool {
        let config: mm_core::Result<Value> = HfFolder::open(model).and_then(|folder| folder.config());
        config.is_ok_and(|config| {
            config["model_type"] == MODEL_TYPE && config["encoder"]["model_type"] == ENCODER_TYPE
        })
    }

    /// Reads the config in the folder or of the hub name `model` and maps its weights. Of a checkpoint of a
    /// training run these are the moving averages where the run keeps any.
    ///
    /// # Errors
    /// The model cannot be found, a file is missing or damaged, or the architecture does not read documents.
    pub fn open(model: &str) -> Result<Self> {
        Self::open_folder(HfFolder::open(model)?, true)
    }

    /// As [`DocumentFolder::open`], with the weights of the last step of a checkpoint.
    ///
    /// # Errors
    /// As [`DocumentFolder::open`].
    pub fn open_last_step(checkpoint: &Path) -> Result<Self> {
        Self::open_folder(HfFolder::at(checkpoint), false)
    }

    fn open_folder(folder: HfFolder, averaged: bool) -> Result<Self> {
        let json: Value = folder.config()?;
        let file = folder.file(CONFIG_FILE);
        let config = read_config(&json).map_err(|error| error.at(&file))?;
        let generation_file = folder.file(GENERATION_CONFIG_FILE);
        let generation: Value =
            if generation_file.exists() { read_json(&generation_file)? } else { Value::Null };
        let tokens = special_tokens(&json, &generation).map_err(|error| error.at(&file))?;
        let trained_for =
            match &json[TRAINED_FOR] {
                Value::Null => None,
                given => Some(TrainedFor::deserialize(given).map_err(|error| Error::Folder {
                    path: file,
                    problem: format!("{TRAINED_FOR}: {error}"),
                })?),
            };
        let (weights, layout) = if folder.is_checkpoint() {
            let mut weights = folder.checkpoint_weights(averaged)?;
            // It trains the encoder and is no part of the model.
            weights.retain(|name| !name.starts_with(CHARACTER_HEAD));
            (weights, TensorLayout::AS_IS)
        } else {
            let mut weights = folder.weights("model")?;
            drop_copies(&mut weights);
            // Positions within a window follow from its size.
            weights.retain(|name| !name.ends_with("relative_position_index"));
            (weights, TensorLayout::HF)
        };
        Ok(Self { folder, config, tokens, trained_for, weights, layout, json })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Its files are missing or malformed, or it does not fit the decoder.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let path = self.folder.tokenizer_folder();
        let tokenizer = Tokenizer::for_decoder(&path)?;
        self.config.check_tokenizer(&tokenizer, &self.tokens).map_err(|error| error.at(&path))?;
        Ok(tokenizer)
    }

    /// The preprocessing from pages to `pixel_values` of the encoder's size.
    ///
    /// # Errors
    /// The file of the preprocessing is missing, malformed or of another size than the encoder's.
    pub fn processor(&self) -> Result<DocumentProcessor> {
        let (file, processor) = DocumentProcessor::from_folder(&self.folder.processor_folder())?;
        let (width, height) = processor.output_size();
        let [rows, columns] = self.config.encoder.image_size;
        if [i64::from(height), i64::from(width)] == [rows, columns] {
            return Ok(processor);
        }
        let problem =
            format!("pages become {width} x {height} pixels, but the encoder takes {columns} x {rows}");
        Err(Error::Folder { path: file, problem })
    }

    /// The model's defaults of generation. Where the folder sets no limit of tokens, it is that of the
    /// decoder.
    ///
    /// # Errors
    /// The file is malformed, or a value out of range.
    pub fn generation(&self) -> Result<GenerationConfig> {
        let mut generation = GenerationConfig::from_folder(&self.folder, &self.json, 1)?;
        let most = self.config.decoder.max_length() as usize;
        let is_default = generation.max_new_tokens == GenerationConfig::default().max_new_tokens;
        generation.max_new_tokens = if is_default { most } else { generation.max_new_tokens.min(most) };
        Ok(generation)
    }

    /// Builds the model on `vs` and fills it.
    ///
    /// # Errors
    /// Config and weights do not match.
    pub fn build(&self, vs: &VarStore) -> Result<DocumentModel> {
        self.weights.build(vs, &self.layout, |path| DocumentModel::new(path, &self.config))
    }

    /// As [`DocumentFolder::build`], for a vocabulary of at least `vocab_size` tokens: new ones have the mean
    /// of the others as their embedding, which is then the likeliest to be of use (Hewitt 2021), with a
    /// little noise.
    ///
    /// # Errors
    /// As [`DocumentFolder::build`].
    pub(super) fn build_with_vocabulary(&mut self, vs: &VarStore, vocab_size: i64) -> Result<DocumentModel> {
        /// The noise over the spread of the embeddings.
        const NOISE: f64 = 0.1;
        let rows = self.config.decoder.vocab_size;
        if vocab_size > rows {
            let old = self.weights.tensor(EMBEDDINGS)?;
            let (mean, spread) = (old.mean_dim([0i64].as_slice(), true, old.kind()), old.std(true));
            let new = Tensor::randn([vocab_size - rows, old.size()[1]], (old.kind(), old.device()));
            self.weights.replace(EMBEDDINGS, Tensor::cat(&[&old, &(mean + new * spread * NOISE)], 0));
            self.config.decoder.vocab_size = vocab_size;
        }
        self.build(vs)
    }

    /// The weights, without the copies that savers write of tied ones.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// What a folder has beside the weights.
pub(super) struct FolderParts<'a> {
    pub config: &'a DocumentModelConfig,
    pub tokens: &'a SpecialTokens,
    pub trained_for: TrainedFor,
    pub tokenizer: &'a Tokenizer,
    pub processor: &'a DocumentProcessor,
    pub generation: &'a GenerationConfig,
}

impl FolderParts<'_> {
    /// Writes the weights, `variables` by the names of the model, and the parts to the existing `folder`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, variables: Vec<(String, Tensor)>, folder: &Path, dtype: StoredType) -> Result<()> {
        let mut tensors = dtype.convert(stored(variables, &TensorLayout::HF));
        let buffers = self.config.encoder.stored_buffers();
        tensors.extend(buffers.into_iter().map(|(name, buffer)| (format!("encoder.{name}"), buffer)));
        write(&folder.join("model.safetensors"), &tensors)?;
        self.save_config(folder, dtype)
    }

    /// [`FolderParts::save`] without the weights.
    ///
    /// # Errors
    /// As [`FolderParts::save`].
    pub fn save_config(&self, folder: &Path, dtype: StoredType) -> Result<()> {
        let mut config = write_config(self.config, self.tokens);
        config[TRAINED_FOR] = json!(self.trained_for);
        config["dtype"] = dtype.hf_name().into();
        write_json(&folder.join(CONFIG_FILE), &config)?;
        write_json(&folder.join(PROCESSOR_CONFIG_FILE), &self.processor.to_json())?;
        self.tokens.write_generation(self.generation, folder)?;
        self.tokenizer.save(folder, &["input_ids", "attention_mask"])?;
        Ok(())
    }
}

/// Reads the config.
fn read_config(config: &Value) -> Result<DocumentModelConfig> {
    let of = |part: &Value| part["model_type"].as_str().unwrap_or("missing").to_owned();
    let (encoder, decoder) = (&config["encoder"], &config["decoder"]);
    for (what, found, expected) in [
        ("model_type", of(config), MODEL_TYPE),
        ("the encoder's model_type", of(encoder), ENCODER_TYPE),
        ("the decoder's model_type", of(decoder), DECODER_TYPE),
    ] {
        if found != expected {
            return Err(Error::Model(format!(
                "{what} is {found}: models that read documents have {expected}"
            )));
        }
    }
    Ok(DocumentModelConfig {
        encoder: SwinConfig::from_hf(encoder)?,
        decoder: MBartDecoderConfig::from_hf(decoder)?,
    })
}

/// Writes the config.
fn write_config(config: &DocumentModelConfig, tokens: &SpecialTokens) -> Value {
    json!({
        "architectures": ["VisionEncoderDecoderModel"],
        "model_type": MODEL_TYPE,
        "is_encoder_decoder": true,
        // The decoder's own are tied; this is about the two models.
        "tie_word_embeddings": false,
        "encoder": config.encoder.to_hf(),
        "decoder": config.decoder.to_hf(),
        "decoder_start_token_id": tokens.start,
        "eos_token_id": tokens.end,
        "pad_token_id": tokens.pad,
    })
}

/// The special tokens, looked for in the order of transformers.
fn special_tokens(config: &Value, generation: &Value) -> Result<SpecialTokens> {
    let find = |name: &str| {
        [generation, config, &config["decoder"]].into_iter().find_map(|source| token_id(source, name))
    };
    let missing = || Error::Model("no eos_token_id in config.json or generation_config.json".to_owned());
    let end = find("eos_token_id").ok_or_else(missing)?;
    let start = find("decoder_start_token_id").or_else(|| find("bos_token_id"));
    Ok(SpecialTokens { start, end, pad: find("pad_token_id").unwrap_or(end) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut config = DocumentModelConfig::default();
        config.encoder.image_size = [1280, 960];
        config.decoder.vocab_size = 100;
        let tokens = SpecialTokens { start: Some(57), end: 2, pad: 1 };
        let written = write_config(&config, &tokens);
        assert_eq!(read_config(&written).unwrap(), config);
        assert_eq!(special_tokens(&written, &Value::Null).unwrap(), tokens);
        let generation = json!({"decoder_start_token_id": 58});
        assert_eq!(special_tokens(&written, &generation).unwrap().start, Some(58));
    }

    #[test]
    fn what_reads_no_documents_is_refused_with_its_value() {
        let with = |encoder: &str, decoder: &str| {
            json!({"model_type": MODEL_TYPE, "encoder": {"model_type": encoder},
                   "decoder": {"model_type": decoder}})
        };
        for (config, expected) in [
            (json!({"model_type": "blip"}), "model_type is blip"),
            (with("vit", "mbart"), "the encoder's model_type is vit"),
            (with("donut-swin", "gpt2"), "the decoder's model_type is gpt2"),
            (json!({"model_type": MODEL_TYPE}), "the encoder's model_type is missing"),
        ] {
            let message = read_config(&config).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(special_tokens(&json!({}), &Value::Null).unwrap_err().to_string().contains("eos_token_id"));
    }
}
