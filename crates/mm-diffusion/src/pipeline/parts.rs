//! The parts of a pipeline: in a diffusers folder, in a checkpoint of a training run, or in one file.

use super::Denoiser;
use super::open::{Family, INDEX_FILE, WEIGHTS};
use crate::lora::Component;
use crate::schedulers::SchedulerConfig;
use crate::sd3::{Sd3Config, Sd3Transformer};
use crate::single_file::SingleFile;
use crate::text::build_below;
use crate::unet::{UNet, UNetConfig};
use crate::vae::{Vae, VaeConfig};
use crate::{Error, Result};
use mm_core::checkpoint::{TensorLayout, Weights};
use mm_core::hf::HfFolder;
use mm_core::{hub, read_json};
use mm_text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;

/// The parts of a pipeline, with their list.
pub(super) struct PartSource {
    pub path: PathBuf,
    pub index: Value,
    pub family: Family,
    storage: Storage,
}

/// How the parts are stored.
enum Storage {
    /// Each in a folder of its own.
    Folders,
    /// The weights of all in one file, as the variables are.
    Checkpoint,
    /// All in one file, under the names of CompVis's code.
    SingleFile(Box<SingleFile>),
}

impl PartSource {
    pub fn open(model: &str) -> Result<Self> {
        if Path::new(model).is_file() {
            return Self::open_file(Path::new(model));
        }
        let path = hub::resolve(model)?;
        let index_file = path.join(INDEX_FILE);
        if !index_file.exists() {
            let problem = format!("has no {INDEX_FILE}: it is no folder of a diffusers pipeline");
            return Err(Error::folder(&path, problem));
        }
        let index: Value = read_json(&index_file)?;
        let class = index["_class_name"].as_str().unwrap_or_default();
        let family = Family::of(class).map_err(|problem| Error::folder(&index_file, problem))?;
        let storage = match HfFolder::at(&path).is_checkpoint() {
            true => Storage::Checkpoint,
            false => Storage::Folders,
        };
        let folder = Self { path, index, family, storage };
        let mut parts = vec![family.denoiser().0, "scheduler", "text_encoder", "tokenizer"];
        if family.has_two_clips() {
            parts.extend(["text_encoder_2", "tokenizer_2"]);
        }
        parts.extend(folder.has_vae().then_some("vae"));
        match parts.iter().find(|part| !folder.path.join(part).is_dir()) {
            Some(part) => Err(Error::folder(&folder.path, format!("has no {part}/: copy the folder again"))),
            None => Ok(folder),
        }
    }

    fn open_file(path: &Path) -> Result<Self> {
        let file = SingleFile::open(path)?;
        let family = Family::of(file.pipeline_class()).map_err(|problem| Error::folder(path, problem))?;
        let (path, index) = (path.to_owned(), file.index());
        Ok(Self { path, index, family, storage: Storage::SingleFile(Box::new(file)) })
    }

    /// Whether the index has the part.
    pub fn has(&self, part: &str) -> bool {
        !self.index[part][1].is_null()
    }

    pub fn has_vae(&self) -> bool {
        self.family != Family::Pixel || self.has("vae")
    }

    pub fn config(&self, part: &str) -> Result<Value> {
        match &self.storage {
            Storage::SingleFile(file) => file.config(part),
            _ => Ok(HfFolder::at(self.path.join(part)).config()?),
        }
    }

    pub fn scheduler(&self) -> Result<SchedulerConfig> {
        match &self.storage {
            Storage::SingleFile(file) => SchedulerConfig::new(file.scheduler_config(None)?),
            _ => SchedulerConfig::read(&self.path.join("scheduler").join("scheduler_config.json")),
        }
    }

    /// The tokenizer in the folder `name`.
    pub fn tokenizer(&self, name: &str) -> Result<Tokenizer> {
        match &self.storage {
            Storage::SingleFile(file) => file.tokenizer(name),
            _ => Ok(Tokenizer::from_dir(&self.path.join(name))?),
        }
    }

    /// The weights of the part under its own names.
    pub fn weights(&self, part: &str, stem: &str) -> Result<Weights> {
        match &self.storage {
            Storage::Folders => Ok(HfFolder::at(self.path.join(part)).weights(stem)?),
            Storage::SingleFile(file) => file.weights(part),
            Storage::Checkpoint => {
                let prefix = format!("{part}.");
                let mut weights = HfFolder::at(&self.path).checkpoint_weights(true)?;
                weights.retain(|name| name.starts_with(&prefix));
                weights.rename(|name| name.trim_start_matches(&prefix).to_owned());
                Ok(weights)
            }
        }
    }

    /// How weights are stored: by `layout`, in a checkpoint as they are.
    pub fn layout(&self, layout: TensorLayout) -> TensorLayout {
        match self.storage {
            Storage::Checkpoint => TensorLayout::AS_IS,
            _ => layout,
        }
    }

    pub fn denoiser(&self, weights: &mut Weights, vs: &VarStore) -> Result<Denoiser> {
        let (part, component) = self.family.denoiser();
        let config = self.config(part)?;
        Ok(match component {
            Component::Transformer => {
                let config = Sd3Config::from_hf(&config)?;
                let layout = self.layout(Sd3Transformer::LAYOUT);
                let make = |path: &tch::nn::Path| Sd3Transformer::new(path, &config);
                Denoiser::Transformer(Box::new(build_below(vs, part, weights, &layout, make)?))
            }
            _ => {
                let config = UNetConfig::from_hf(&config)?;
                let layout = self.layout(UNet::LAYOUT);
                let make = |path: &tch::nn::Path| UNet::new(path, &config);
                Denoiser::UNet(Box::new(build_below(vs, part, weights, &layout, make)?))
            }
        })
    }

    pub fn vae(&self, vs: &VarStore) -> Result<Vae> {
        let config = VaeConfig::from_hf(&self.config("vae")?)?;
        let mut weights = self.weights("vae", WEIGHTS)?;
        Vae::rename_old_attention(&mut weights);
        let layout = self.layout(Vae::LAYOUT);
        build_below(vs, "vae", &mut weights, &layout, |path| Vae::new(path, &config))
    }
}
