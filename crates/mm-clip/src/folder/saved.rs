//! Writing of model folders.

use super::{Architecture, CheckpointFormat, INT8_STEM, hf, open_clip, verify};
use crate::checkpoint::{OPEN_CLIP, open_clip_layout};
use crate::encoder::TEXT_ROOT;
use crate::{ClipConfig, Error, Result};
use mm_core::checkpoint::{StoredType, TensorLayout, Weights, stored, write};
use mm_core::hf::{CONFIG_FILE, OPEN_CLIP_CONFIG_FILE, PROCESSOR_CONFIG_FILE};
use mm_core::write_json;
use mm_text::{TextTowerConfig, Tokenizer};
use mm_vision::ImageProcessor;
use serde_json::{Value, json};
use std::path::Path;
use tch::Tensor;

/// A model to be written to a folder.
pub struct Saved<'a> {
    /// The model without its weights.
    pub description: Description<'a>,
    /// The variables, named as in [`Clip`](crate::Clip).
    pub variables: Vec<(String, Tensor)>,
}

/// A model without its weights.
#[derive(Clone, Copy)]
pub struct Description<'a> {
    /// The architecture of the model.
    pub architecture: &'a Architecture,
    /// The tokenizer of the text tower.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Whether the tokenizer's files are written; otherwise the caller copies the original ones.
    pub writes_tokenizer: bool,
    /// The preprocessing of the image tower.
    pub processor: Option<&'a ImageProcessor>,
    /// The name on the hub of the text tower's config, which open_clip's format has for a BERT.
    pub hf_model_name: Option<&'a str>,
}

impl Saved<'_> {
    /// Writes config, weights, preprocessing and tokenizer to the existing `folder`, in `format`.
    ///
    /// # Errors
    /// A file cannot be written, or the format cannot represent the model.
    pub fn write(mut self, folder: &Path, format: CheckpointFormat, dtype: StoredType) -> Result<()> {
        self.description.check(format)?;
        let (names, stem) = match format {
            CheckpointFormat::Hf if dtype == StoredType::Int8 => (TensorLayout::HF, INT8_STEM),
            CheckpointFormat::Hf | CheckpointFormat::Own => (TensorLayout::HF, "model"),
            CheckpointFormat::OpenClip => (open_clip_layout(self.description.pair()?), "open_clip_model"),
            CheckpointFormat::Openai => (OPEN_CLIP, "model"),
            CheckpointFormat::Checkpoint => (TensorLayout::AS_IS, "model"),
        };
        let bare_root = self.description.bare_root().filter(|_| format == CheckpointFormat::Hf);
        let mut tensors = stored(std::mem::take(&mut self.variables), &names);
        for (name, _) in &mut tensors {
            if let Some(bare) = bare_root.and_then(|root| name.strip_prefix(root)?.strip_prefix('.')) {
                *name = bare.to_owned();
            }
        }
        let file = folder.join(format!("{stem}.safetensors"));
        write(&file, &dtype.convert(tensors))?;
        if format == CheckpointFormat::Openai {
            open_clip::check_shapes_give_config(self.description.pair()?, &Weights::open(&file)?)?;
        }
        self.description.write(folder, format, dtype)
    }
}

impl Description<'_> {
    /// The format for this pair of towers: transformers' if it can represent the pair, else open_clip's, else
    /// this project's own.
    ///
    /// # Errors
    /// No format can represent it.
    pub fn format(&self) -> Result<CheckpointFormat> {
        match [CheckpointFormat::Hf, CheckpointFormat::OpenClip]
            .into_iter()
            .find(|format| self.check(*format).is_ok())
        {
            Some(format) => Ok(format),
            None => self.check(CheckpointFormat::Own).map(|()| CheckpointFormat::Own),
        }
    }

    /// Checks that `format` can represent the model's config and preprocessing, and that they read back as
    /// the same, without writing a file.
    ///
    /// # Errors
    /// The format has no place for a setting, which is named.
    pub fn check(&self, format: CheckpointFormat) -> Result<()> {
        let config = self.config(format)?;
        let read = match (format, self.architecture) {
            (CheckpointFormat::Openai, _) => None, // the config is in the shapes of the tensors
            (CheckpointFormat::OpenClip, _) => {
                Some(open_clip::read(&config["model_cfg"], self.bert_config().as_ref())?)
            }
            (_, Architecture::Clip(_)) => hf::read_pair(&config)?,
            (_, _) => None,
        };
        if let Some(read) = read {
            verify::same_architecture(&Architecture::Clip(read), self.architecture, self.tokenizer)?;
        }
        let Some(processor) = self.processor else { return Ok(()) };
        let read = match format {
            CheckpointFormat::OpenClip => ImageProcessor::from_open_clip(&config["preprocess_cfg"])?,
            _ => ImageProcessor::from_json(&preprocessing(processor, &config)?)?,
        };
        verify::same_processor(&read, processor)?;
        let truncates_at_positions = [CheckpointFormat::OpenClip, CheckpointFormat::Openai].contains(&format)
            && self.bert_config().is_none();
        let Some((length, positions)) = self.shortened().filter(|_| truncates_at_positions) else {
            return Ok(());
        };
        Err(Error::Model(format!(
            "the tokenizer truncates texts at {length} tokens, and readers of this format would at the \
             {positions} positions of the tower: keep the model in Hugging Face's format, or set \
             model_max_length in its tokenizer_config.json to {positions}"
        )))
    }

    /// Writes config, preprocessing and tokenizer to the existing `folder`, for weights of type `dtype`.
    ///
    /// # Errors
    /// A file cannot be written, or the format cannot represent the model.
    pub fn write(&self, folder: &Path, format: CheckpointFormat, dtype: StoredType) -> Result<()> {
        let mut config = self.config(format)?;
        match format {
            CheckpointFormat::Hf => {
                config["dtype"] = dtype.hf_name().into();
                write_json(&folder.join(CONFIG_FILE), &config)?;
            }
            CheckpointFormat::Own | CheckpointFormat::Checkpoint => {
                write_json(&folder.join(CONFIG_FILE), &config)?
            }
            CheckpointFormat::OpenClip => {
                write_json(&folder.join(OPEN_CLIP_CONFIG_FILE), &config)?;
                if let Some(bert) = self.bert_config() {
                    write_json(&folder.join(CONFIG_FILE), &bert)?;
                }
            }
            CheckpointFormat::Openai => {}
        }
        if let Some(processor) = self.processor.filter(|_| format != CheckpointFormat::OpenClip) {
            write_json(&folder.join(PROCESSOR_CONFIG_FILE), &preprocessing(processor, &config)?)?;
        }
        if let (Some(tokenizer), true, Some(text)) = (self.tokenizer, self.writes_tokenizer, self.text()) {
            tokenizer.save(folder, text.input_names())?;
        }
        Ok(())
    }

    /// The config in `format`; null for a format without one.
    fn config(&self, format: CheckpointFormat) -> Result<Value> {
        match format {
            CheckpointFormat::Hf => hf::write(self.architecture, self.tokenizer),
            CheckpointFormat::Own | CheckpointFormat::Checkpoint => hf::write_own(self.pair()?),
            CheckpointFormat::Openai => self.pair().map(|_| Value::Null),
            CheckpointFormat::OpenClip => {
                let mut model_cfg = open_clip::write(self.pair()?, self.hf_model_name)?;
                if let Some(tokenizer) = self.tokenizer {
                    open_clip::set_tokenizer(&mut model_cfg["text_cfg"], tokenizer);
                }
                let preprocess_cfg = self.processor.map(ImageProcessor::to_open_clip).transpose()?;
                Ok(json!({ "model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg }))
            }
        }
    }

    /// The tokenizer's maximum length and the tower's positions, if the former is smaller.
    fn shortened(&self) -> Option<(i64, i64)> {
        let (length, positions) = (self.tokenizer?.context_length() as i64, self.text()?.context_length());
        (length < positions).then_some((length, positions))
    }

    /// transformers' config of the text tower, if it is a BERT.
    fn bert_config(&self) -> Option<Value> {
        match self.text() {
            Some(TextTowerConfig::Bert(bert)) => Some(bert.to_hf()),
            Some(TextTowerConfig::Clip(_)) | None => None,
        }
    }

    /// The text tower, if the model has one.
    fn text(&self) -> Option<&TextTowerConfig> {
        match self.architecture {
            Architecture::Clip(ClipConfig { text, .. }) | Architecture::Text { tower: text, .. } => {
                Some(text)
            }
            Architecture::Image { .. } => None,
        }
    }

    /// The config of both towers, which every format but Hugging Face's needs.
    fn pair(&self) -> Result<&ClipConfig> {
        match self.architecture {
            Architecture::Clip(config) => Ok(config),
            _ => Err(Error::Model(
                "only transformers has a format for a single tower: keep it in Hugging Face's".to_owned(),
            )),
        }
    }

    /// The prefix of a single tower's names, which they do not have in the tower's own transformers class.
    fn bare_root(&self) -> Option<&'static str> {
        match self.architecture {
            Architecture::Image { tower, projection: None } => Some(tower.root()),
            Architecture::Text { projection: None, .. } => Some(TEXT_ROOT),
            _ => None,
        }
    }
}

/// The JSON of `processor` for `config`: in this project's own format only beside such a config, which no
/// other program reads.
fn preprocessing(processor: &ImageProcessor, config: &Value) -> Result<Value> {
    Ok(if hf::is_own(config) { processor.to_own_json()? } else { processor.to_json()? })
}
