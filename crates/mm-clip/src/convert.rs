//! Models from one form of folder to another, and between two models of one architecture.

use crate::folder::{
    Architecture, CheckpointFormat, Description, ModelFolder, Saved, same_architecture, verify,
};
use crate::{Clip, ClipConfig, Error, ImageEncoder, Result, TextEncoder};
use mm_core::checkpoint::StoredType;
use mm_text::Tokenizer;
use mm_vision::ImageProcessor;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A model on its way from one folder to another: its variables in f32, and its readers.
pub struct ModelConverter {
    architecture: Architecture,
    variables: Vec<(String, Tensor)>,
    tokenizer: Option<Tokenizer>,
    processor: Option<ImageProcessor>,
    /// The form that it comes in.
    form: CheckpointFormat,
    /// The files of the tokenizer, which stay as they are in that form.
    tokenizer_files: Vec<PathBuf>,
    /// Files beside the model that go along as they are.
    kept: Vec<PathBuf>,
}

/// What a sentence-transformers folder has beside its BERT.
const KEPT: [&str; 4] = [
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

impl ModelConverter {
    /// Reads the model in a folder or of a hub name, for images of `resolution` pixels where one is given.
    ///
    /// # Errors
    /// The model cannot be opened. A tokenizer or preprocessing that is not there at all is no error: it is
    /// not written either.
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
        let form = folder.format;
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
            Architecture::Text { tower, projection } => TextEncoder::new(path, tower, *projection).map(drop),
        })?;
        let variables =
            vs.variables().into_iter().map(|(name, variable)| (name, variable.detach())).collect();
        Ok(Self { architecture, variables, tokenizer, processor, form, tokenizer_files, kept })
    }

    /// What the model is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Moves each weight the share `alpha` of the way to `finetuned`'s (Wortsman et al. 2022, "Robust
    /// fine-tuning of zero-shot models", section 3): 0 leaves this model, 1 gives the other.
    ///
    /// # Errors
    /// The two are not of one architecture.
    pub fn interpolate(&mut self, finetuned: &Self, alpha: f64) -> Result<()> {
        if same_architecture(&finetuned.architecture, &self.architecture, None).is_err() {
            let problem = "the two models are not of one architecture: `mm inspect` shows each";
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

    /// Writes the folder `to`, which is not there yet: whole or not at all. What was written is opened again
    /// before it gets its name, and its config, tensors, preprocessing and tokenizer are compared with the
    /// model's.
    ///
    /// # Errors
    /// `to` exists, a file cannot be written, or `form` cannot hold the model.
    pub fn write(self, to: &Path, form: CheckpointFormat, dtype: StoredType) -> Result<()> {
        if to.exists() {
            let problem = "exists already: remove it or name another folder".to_owned();
            return Err(Error::Folder { path: to.to_owned(), problem });
        }
        let tokenizer_files = if form == self.form { self.tokenizer_files.as_slice() } else { &[] };
        let description = Description {
            architecture: &self.architecture,
            tokenizer: self.tokenizer.as_ref(),
            writes_tokenizer: tokenizer_files.is_empty(),
            processor: self.processor.as_ref(),
        };
        mm_core::checkpoint::write_folder(to, |partial| {
            Saved { description, variables: self.variables }.write(partial, form, dtype)?;
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
            verify(partial, form, &description)
        })
    }
}

/// None where a file is not there; a file that is broken stays an error.
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
