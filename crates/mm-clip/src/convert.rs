//! Conversion of models between formats, and interpolation between two models.

use crate::folder::{
    Architecture, CheckpointFormat, Description, ModelFolder, Saved, same_architecture, verify,
};
use crate::{Clip, ClipConfig, Error, ImageEncoder, Result, TextEncoder, TextProjection};
use mm_core::checkpoint::StoredType;
use mm_text::Tokenizer;
use mm_vision::ImageProcessor;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A model to be converted: its variables in f32, its tokenizer and its preprocessing.
pub struct ModelConverter {
    architecture: Architecture,
    variables: Vec<(String, Tensor)>,
    tokenizer: Option<Tokenizer>,
    processor: Option<ImageProcessor>,
    /// The format of its folder.
    format: CheckpointFormat,
    /// See [`Description::hf_model_name`].
    hf_model_name: Option<String>,
    /// The files of the tokenizer, which are copied if the format stays the same.
    tokenizer_files: Vec<PathBuf>,
    /// Other files, which are copied.
    kept: Vec<PathBuf>,
}

/// The files of a sentence-transformers folder beside its BERT.
const KEPT: [&str; 4] = [
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

impl ModelConverter {
    /// Reads the model in a folder or of a hub name, resized to images of `resolution` pixels if given.
    ///
    /// # Errors
    /// The model cannot be opened. A missing tokenizer or preprocessing is not an error: it is not written
    /// either.
    pub fn read(model: &str, resolution: Option<i64>) -> Result<Self> {
        let folder = ModelFolder::open(model)?;
        let mut architecture = folder.architecture.clone();
        let mut processor = match &architecture {
            Architecture::Text { .. } => None,
            _ => unless_absent(folder.processor())?,
        };
        let tokenizer = match &architecture {
            Architecture::Image { .. } => None,
            _ => unless_absent(folder.tokenizer())?,
        };
        if let Some(size) = resolution {
            let (Architecture::Clip(ClipConfig { image, .. }) | Architecture::Image { tower: image, .. }) =
                &mut architecture
            else {
                return Err(Error::Model("a text tower has no resolution".to_owned()));
            };
            *image = image.clone().with_image_size(size)?;
            processor = processor.map(|processor| processor.with_size(size as u32)).transpose()?;
        }
        let vs = VarStore::new(Device::Cpu);
        let tokenizer_files = if tokenizer.is_some() { folder.tokenizer_files() } else { Vec::new() };
        let kept =
            KEPT.map(|name| folder.folder.file(name)).into_iter().filter(|file| file.exists()).collect();
        let format = folder.format;
        let hf_model_name = folder.hf_model_name().map(str::to_owned);
        let resized = match &architecture {
            Architecture::Clip(ClipConfig { image, .. }) | Architecture::Image { tower: image, .. } => {
                resolution.map(|_| image)
            }
            Architecture::Text { .. } => None,
        };
        folder.build(&vs, resized, |path| match &architecture {
            Architecture::Clip(config) => Clip::new(path, config).map(drop),
            Architecture::Image { tower, projection } => {
                ImageEncoder::new(path, tower, *projection).map(drop)
            }
            Architecture::Text { tower, projection } => {
                TextEncoder::new(path, tower, projection.map(TextProjection::linear)).map(drop)
            }
        })?;
        let variables =
            vs.variables().into_iter().map(|(name, variable)| (name, variable.detach())).collect();
        Ok(Self {
            architecture,
            variables,
            tokenizer,
            processor,
            format,
            hf_model_name,
            tokenizer_files,
            kept,
        })
    }

    /// The architecture of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Interpolates each weight linearly to that of `finetuned` (Wortsman et al. 2022, "Robust fine-tuning of
    /// zero-shot models", section 3): `alpha` = 0 is this model, 1 the other.
    ///
    /// # Errors
    /// The architectures differ.
    pub fn interpolate(&mut self, finetuned: &Self, alpha: f64) -> Result<()> {
        if same_architecture(&finetuned.architecture, &self.architecture, None).is_err() {
            let problem = "the two models have different architectures: `mm inspect` shows each";
            return Err(Error::Model(problem.to_owned()));
        }
        for (name, weight) in &mut self.variables {
            let other = finetuned.variables.iter().find(|(other, _)| other == name);
            let (_, other) =
                other.ok_or_else(|| Error::Model(format!("{name} is in one of the models only")))?;
            *weight = tch::no_grad(|| weight.lerp(other, alpha));
        }
        Ok(())
    }

    /// Writes the new folder `to` atomically. Before it is renamed to `to`, the folder is opened again, and
    /// its config, tensors, preprocessing and tokenizer are compared with the model's.
    ///
    /// # Errors
    /// `to` exists, a file cannot be written, or `format` cannot represent the model.
    pub fn write(self, to: &Path, format: CheckpointFormat, dtype: StoredType) -> Result<()> {
        if to.exists() {
            let problem = "already exists: remove it or name another folder".to_owned();
            return Err(Error::Folder { path: to.to_owned(), problem });
        }
        let tokenizer_files = if format == self.format { self.tokenizer_files.as_slice() } else { &[] };
        let description = Description {
            architecture: &self.architecture,
            tokenizer: self.tokenizer.as_ref(),
            writes_tokenizer: tokenizer_files.is_empty(),
            processor: self.processor.as_ref(),
            hf_model_name: self.hf_model_name.as_deref(),
        };
        mm_core::checkpoint::write_folder(to, |partial| {
            Saved { description, variables: self.variables }.write(partial, format, dtype)?;
            for file in self.kept.iter().chain(tokenizer_files) {
                let name = file.file_name().unwrap_or_default();
                let folder = match file.parent().and_then(Path::file_name) {
                    Some(parent) if parent == "1_Pooling" => partial.join(parent),
                    _ => partial.to_owned(),
                };
                std::fs::create_dir_all(&folder)
                    .and_then(|()| std::fs::copy(file, folder.join(name)))
                    .map_err(|source| mm_core::Error::io("copy", file, source))?;
            }
            verify(partial, format, &description)
        })
    }
}

/// None if a file is missing; a damaged file is an error.
fn unless_absent<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(Error::Text(mm_text::Error::NoTokenizer(_))) => Ok(None),
        Err(Error::Vision(mm_vision::Error::Io { source, .. }))
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        read => read.map(Some),
    }
}
