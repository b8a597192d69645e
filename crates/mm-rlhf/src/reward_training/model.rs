//! A reward that is trained, with its preprocessing.

use super::ensemble::{mean_head, member_path};
use super::{AestheticModelConfig, RewardBatch};
use crate::rewards::HeadSizes;
use crate::{Error, Result, ScoreHead};
use mm_clip::{Architecture, CheckpointFormat, ClipPipeline, Description, ImageEmbedder};
use mm_core::checkpoint::{self, StoredType, TensorLayout, Weights, write};
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_core::{OpenOptions, seed, write_json};
use mm_text::{TokenBatch, Tokenizer};
use mm_vision::ImageProcessor;
use serde::{Deserialize, Serialize};
use std::path::Path as FilePath;
use std::sync::Arc;
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

/// The file of an ensemble's mean, which the reward `aesthetic` opens.
const HEAD_FILE: &str = "head.safetensors";

/// The `model_type` of a folder with the MLPs of an aesthetic model.
const AESTHETIC: &str = "aesthetic_reward";

/// A reward that is trained, with its preprocessing.
#[derive(Debug)]
pub enum RewardModel {
    /// exp(logit_scale) times the cosine of image and prompt.
    Clip(Box<ClipPipeline>),
    /// MLPs on the embedding of an image.
    Aesthetic(Box<AestheticModel>),
}

/// MLPs on the embedding of an image by a frozen CLIP.
#[derive(Debug)]
pub struct AestheticModel {
    /// The folder or hub name of the CLIP.
    from: String,
    images: ImageEmbedder,
    sizes: HeadSizes,
    members: Vec<ScoreHead>,
}

/// `config.json` of an aesthetic model.
#[derive(Serialize, Deserialize)]
struct AestheticFile {
    model_type: String,
    /// The folder or hub name of the CLIP.
    from: String,
}

impl RewardModel {
    /// Opens a reward for inference: a folder that a run with `run.task = "reward"` saved, a checkpoint of
    /// one, or any CLIP.
    ///
    /// # Errors
    /// A file is missing or damaged, or the MLPs do not fit the CLIP.
    pub fn open(name: &str, options: &OpenOptions) -> Result<Self> {
        let folder = HfFolder::open(name)?;
        let config: Option<serde_json::Value> =
            if folder.has(CONFIG_FILE) { Some(folder.config()?) } else { None };
        if config.is_some_and(|config| config["model_type"] == AESTHETIC) {
            return Ok(Self::Aesthetic(Box::new(AestheticModel::open(&folder, options)?)));
        }
        Ok(Self::Clip(Box::new(ClipPipeline::open(name, options)?)))
    }

    /// The number K of scores of an image: the members of an ensemble, or 1.
    pub fn members(&self) -> usize {
        match self {
            Self::Clip(_) => 1,
            Self::Aesthetic(model) => model.members.len(),
        }
    }

    /// The scores `[K, M]` of the M images of `batch`, f32, with gradients to what trains.
    ///
    /// # Errors
    /// libtorch refuses the batch.
    pub fn scores(&self, batch: &RewardBatch) -> Result<Tensor> {
        match (self, &batch.prompts) {
            (Self::Clip(clip), Some(prompts)) => {
                let images = clip.image.encoder.encode(&batch.pixel_values, false);
                let texts = clip.text.encoder.encode(prompts).f_index_select(0, &batch.items)?;
                let cosines = (images * texts).f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)?;
                Ok(cosines.transpose(0, 1) * clip.head.logit_scale().exp())
            }
            (Self::Clip(_), None) => Err(Error::Request("a CLIP scores an image with its prompt".to_owned())),
            (Self::Aesthetic(model), _) => {
                let encoder = &model.images.encoder;
                let rows = tch::no_grad(|| encoder.encode(&batch.pixel_values, false));
                let scores =
                    model.members.iter().map(|head| head.forward(&rows)).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::f_stack(&scores, 0)?.to_kind(Kind::Float))
            }
        }
    }

    /// The device that it computes on.
    pub(super) fn device(&self) -> Device {
        match self {
            Self::Clip(clip) => clip.image.device,
            Self::Aesthetic(model) => model.images.device,
        }
    }

    pub(super) fn processor(&self) -> &ImageProcessor {
        match self {
            Self::Clip(clip) => &clip.image.processor,
            Self::Aesthetic(model) => &model.images.processor,
        }
    }

    /// The tokenizer of prompts; none for a model that reads none.
    pub(super) fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        match self {
            Self::Clip(clip) => Some(&clip.text.tokenizer),
            Self::Aesthetic(_) => None,
        }
    }

    /// The prompts of a batch; none for a model that reads none.
    pub(super) fn collate(&self, prompts: &[Vec<u32>]) -> Option<TokenBatch> {
        match self {
            Self::Clip(clip) => Some(clip.text.tokenizer.collate(prompts, clip.text.padding)),
            Self::Aesthetic(_) => None,
        }
    }

    /// Writes what a checkpoint needs beside its weights to open as a reward.
    pub(super) fn describe(&self, folder: &FilePath) -> Result<()> {
        match self {
            Self::Clip(clip) => {
                let description = Description {
                    architecture: &Architecture::Clip(clip.config.clone()),
                    tokenizer: Some(&clip.text.tokenizer),
                    writes_tokenizer: true,
                    processor: Some(&clip.image.processor),
                    hf_model_name: None,
                };
                Ok(description.write(folder, CheckpointFormat::Checkpoint, StoredType::F32)?)
            }
            Self::Aesthetic(model) => model.describe(folder),
        }
    }

    /// Writes the reward, with the `variables` of the CLIP or of the MLPs, to the existing `folder`: a CLIP
    /// in the most widely supported format, and MLPs as `model.safetensors` with their mean in
    /// `head.safetensors`.
    pub(super) fn save(&self, variables: Vec<(String, Tensor)>, folder: &FilePath) -> Result<()> {
        match self {
            Self::Clip(clip) => {
                Ok(clip.save_variables(variables, folder, clip.format()?, StoredType::F32)?)
            }
            Self::Aesthetic(model) => {
                model.describe(folder)?;
                let tensors = checkpoint::stored(variables, &TensorLayout::AS_IS);
                write(&folder.join("model.safetensors"), &tensors)?;
                let variables = tensors.into_iter().collect();
                let mean = mean_head(&variables, model.members.len(), &model.sizes)?;
                Ok(write(&folder.join(HEAD_FILE), &mean)?)
            }
        }
    }
}

impl AestheticModel {
    /// New MLPs on the empty store `vs` for the CLIP of `config`. Member k's initial values depend on
    /// `run_seed` and k alone; each begins with the score `mean` at features of 0.
    pub(super) fn new(
        config: &AestheticModelConfig,
        vs: &VarStore,
        run_seed: u64,
        mean: f64,
    ) -> Result<Self> {
        let options = OpenOptions { device: vs.device().into(), ..OpenOptions::default() };
        let images = ImageEmbedder::open(&config.from, &options)?;
        let sizes = HeadSizes::new(images.encoder.output_width(), &config.hidden);
        let member = |member: usize| {
            seed::set(run_seed, "init", member as u64);
            ScoreHead::new(&(vs.root() / "members" / member), &sizes)
        };
        let members: Vec<ScoreHead> = (0..config.ensemble).map(member).collect();
        let last = sizes.places().last().copied().unwrap_or(0);
        let is_last_bias = |name: &str| name.ends_with(&format!(".layers.{last}.bias"));
        for (_, mut bias) in vs.variables().into_iter().filter(|(name, _)| is_last_bias(name)) {
            let _ = tch::no_grad(|| bias.fill_(mean));
        }
        Ok(Self { from: config.from.clone(), images, sizes, members })
    }

    fn open(folder: &HfFolder, options: &OpenOptions) -> Result<Self> {
        let AestheticFile { from, .. } = folder.config()?;
        let weights = match folder.is_checkpoint() {
            true => folder.checkpoint_weights(true)?,
            false => Weights::open(&folder.file("model.safetensors"))?,
        };
        let images = ImageEmbedder::open(&from, options)?;
        let prefix = |member| format!("{}.", member_path(member));
        let count = (0..).take_while(|&member| weights.has_prefix(&prefix(member))).count().max(1);
        let sizes = HeadSizes::of(&weights, &prefix(0), images.encoder.output_width());
        let mut vs = VarStore::new(images.device);
        let make = |path: &Path| -> Result<Vec<ScoreHead>> {
            Ok((0..count).map(|member| ScoreHead::new(&(path / "members" / member), &sizes)).collect())
        };
        let members = weights.build(&vs, &TensorLayout::AS_IS, make)?;
        vs.freeze();
        Ok(Self { from, images, sizes, members })
    }

    fn describe(&self, folder: &FilePath) -> Result<()> {
        let file = AestheticFile { model_type: AESTHETIC.to_owned(), from: self.from.clone() };
        Ok(write_json(&folder.join(CONFIG_FILE), &file)?)
    }
}
