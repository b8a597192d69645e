use super::{Architecture, FolderForm, INT8_STEM, OPEN_CLIP_CONFIG, PREPROCESSING, hf, open_clip};
use crate::checkpoint::OPEN_CLIP;
use crate::encoder::{TEXT_ROOT, image_root};
use crate::{ClipConfig, Error, Result};
use mm_core::checkpoint::{Form, Weights, quantise, stored, write, write_atomically};
use mm_text::{TextTowerConfig, Tokenizer};
use mm_vision::ImageProcessor;
use serde_json::{Value, json};
use std::path::Path;
use tch::{Kind, Tensor};

/// What is written into a model's folder.
pub struct Saved<'a> {
    /// What the model is.
    pub architecture: &'a Architecture,
    /// Its variables, named as in [`Clip`](crate::Clip).
    pub variables: Vec<(String, Tensor)>,
    /// Of the text tower.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Whether the tokenizer's files are written; else the caller brings those that it came from.
    pub writes_tokenizer: bool,
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
    pub fn write(mut self, folder: &Path, form: FolderForm, dtype: StoredType) -> Result<()> {
        let names = if form == FolderForm::Hf { Form::HF } else { OPEN_CLIP };
        let bare_root = self.bare_root();
        let mut tensors = stored(std::mem::take(&mut self.variables), &names);
        for (name, _) in &mut tensors {
            if let Some(bare) = bare_root.and_then(|root| name.strip_prefix(root)?.strip_prefix('.')) {
                *name = bare.to_owned();
            }
        }
        let tensors = dtype.convert(tensors);
        match form {
            FolderForm::Hf => {
                let stem = if dtype == StoredType::Int8 { INT8_STEM } else { "model" };
                write(&folder.join(format!("{stem}.safetensors")), &tensors)?;
                let mut config = hf::write(self.architecture, self.tokenizer)?;
                config["dtype"] = dtype.name().into();
                write_json(&folder.join("config.json"), &config)?;
            }
            FolderForm::OpenClip => {
                let mut model_cfg = open_clip::write(self.pair()?)?;
                if let Some(tokenizer) = self.tokenizer {
                    open_clip::set_tokenizer(&mut model_cfg["text_cfg"], tokenizer);
                }
                let preprocess_cfg = self.processor.map(ImageProcessor::to_open_clip).transpose()?;
                write(&folder.join("open_clip_model.safetensors"), &tensors)?;
                let config = json!({ "model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg });
                write_json(&folder.join(OPEN_CLIP_CONFIG), &config)?;
            }
            FolderForm::Openai => {
                let file = folder.join("model.safetensors");
                write(&file, &tensors)?;
                open_clip::check_told_by_shapes(self.pair()?, &Weights::open(&file)?)?;
            }
        }
        if let (Some(processor), FolderForm::Hf | FolderForm::Openai) = (self.processor, form) {
            processor.save(&folder.join(PREPROCESSING))?;
        }
        if let (Some(tokenizer), true, Some(text)) = (self.tokenizer, self.writes_tokenizer, self.text()) {
            tokenizer.save(folder, text.input_names())?;
        }
        Ok(())
    }

    /// The text tower, if there is one.
    fn text(&self) -> Option<&TextTowerConfig> {
        match self.architecture {
            Architecture::Clip(ClipConfig { text, .. }) | Architecture::Text { tower: text, .. } => Some(text),
            Architecture::Image { .. } => None,
        }
    }

    /// Both towers, without which there is no form but Hugging Face's.
    fn pair(&self) -> Result<&ClipConfig> {
        match self.architecture {
            Architecture::Clip(config) => Ok(config),
            _ => {
                Err(Error::Model("a tower alone has a form in transformers only: keep it in Hugging Face's".to_owned()))
            }
        }
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
    /// What configs of transformers call the type that a reader is to make of it.
    fn name(self) -> &'static str {
        match self {
            Self::F32 | Self::Int8 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

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

fn write_json(file: &Path, json: &Value) -> Result<()> {
    Ok(write_atomically(file, |to| {
        std::fs::write(to, format!("{json:#}\n")).map_err(|source| mm_core::Error::io("write", file, source))
    })?)
}
