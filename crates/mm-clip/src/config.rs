use crate::ModelConfig;
use mm_core::config::{ConfigError, ConfigFile};
use mm_data::{DatasetConfig, LoaderConfig};
use mm_dist::ContrastiveConfig;
use mm_image::Augment;
use mm_text::{ClipTextVariant, TextClean, TextTowerConfig};
use mm_train::{RunConfig, TrainConfig};
use mm_vision::{ImageTowerConfig, VitVariant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A whole run that trains a CLIP: what `mm train` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipRunConfig {
    /// Name, seed, place and device.
    pub run: RunConfig,
    /// The model.
    pub model: ModelConfig,
    /// How texts become tokens; none: as the checkpoint that the text tower comes from has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// What is read, and how.
    pub data: DataConfig,
    /// Steps, batch, learning rate.
    pub train: TrainConfig,
    /// How the loss holds its logits.
    #[serde(default)]
    pub loss: ContrastiveConfig,
    /// What is measured, and how often.
    #[serde(default)]
    pub eval: ClipEvalConfig,
}

impl ClipRunConfig {
    /// Reads and checks a run's configuration.
    ///
    /// # Errors
    /// A key is unknown, ill-typed or out of range; the error names file, line and key.
    pub fn from_source(source: &ConfigFile) -> std::result::Result<Self, ConfigError> {
        let config: Self = source.parse()?;
        config.run.validate(source)?;
        config.train.validate(source)?;
        if config.loss.tile < 1 {
            return Err(source
                .error("loss.tile", format!("`loss.tile`: must be at least 1, is {}", config.loss.tile)));
        }
        config.model.validate(source)?;
        let own = config.tokenizer.clone().unwrap_or_default();
        if !own.is_tokenizer() && config.model.from.is_none() && config.model.text_from.is_none() {
            let problem =
                "`tokenizer`: needs `from` or `vocab_size` unless the text tower comes from a checkpoint";
            return Err(source.error("tokenizer", problem));
        }
        if own.from.is_some() && own.vocab_size.is_some() {
            let problem = "`tokenizer.vocab_size`: is for one that is trained, and `tokenizer.from` names one that exists: keep one";
            return Err(source.error("tokenizer.vocab_size", problem));
        }
        if !(0.0..=1.0).contains(&config.data.canonical_share) {
            let problem =
                format!("`data.canonical_share`: must be from 0 to 1, is {}", config.data.canonical_share);
            return Err(source.error("data.canonical_share", problem));
        }
        config.data.augment.check().map_err(|error| source.error("data.augment", error.to_string()))?;
        if config.eval.batch_size == 0 {
            return Err(source.error("eval.batch_size", "`eval.batch_size`: must be at least 1"));
        }
        Ok(config)
    }
}

/// A CLIP: any image tower and any text tower with outputs in one space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// Width of the shared space.
    pub embed_dim: i64,
    /// What pulls pairs together.
    #[serde(default)]
    pub loss: ContrastiveLoss,
    /// The image tower.
    pub image: ImageTowerConfig,
    /// The text tower.
    pub text: TextTowerConfig,
    /// Whether a linear map leads from the image tower's output to the shared space; false: the output is in
    /// it, as SigLIP's and the modified ResNet's always are.
    #[serde(default = "yes")]
    pub image_projection: bool,
    /// The same for the text tower.
    #[serde(default = "yes")]
    pub text_projection: bool,
}

fn yes() -> bool {
    true
}

impl ClipConfig {
    /// Two towers with CLIP's loss, projected where they do not end in the shared space themselves.
    pub fn new(embed_dim: i64, image: ImageTowerConfig, text: TextTowerConfig) -> Self {
        let loss = ContrastiveLoss::InfoNce;
        Self { embed_dim, loss, image, text, image_projection: true, text_projection: true }
    }

    /// Whether training computes the activations inside of the towers' transformer blocks again in the backward
    /// pass: less memory, more time, the same gradients.
    pub fn set_gradient_checkpointing(&mut self, on: bool) {
        self.image.set_gradient_checkpointing(on);
        self.text.set_gradient_checkpointing(on);
    }

    /// The width that the image tower's output is projected to, if it is.
    pub fn image_projection_to(&self) -> Option<i64> {
        let ends_there = match &self.image {
            ImageTowerConfig::ModifiedResNet(_) => true,
            ImageTowerConfig::Vit(vit) => vit.form == VitVariant::Siglip,
            ImageTowerConfig::ResNet(_) => false,
        };
        (self.image_projection && !ends_there).then_some(self.embed_dim)
    }

    /// The width that the text tower's output is projected to, if it is.
    pub fn text_projection_to(&self) -> Option<i64> {
        let ends_there =
            matches!(&self.text, TextTowerConfig::Clip(text) if text.form == ClipTextVariant::Siglip);
        (self.text_projection && !ends_there).then_some(self.embed_dim)
    }
}

/// The contrastive losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastiveLoss {
    /// Which text belongs to this image, and the reverse (Radford et al. 2021).
    #[default]
    InfoNce,
    /// Do this image and this text belong together (Zhai et al. 2023).
    Siglip,
}

/// `[tokenizer]`: one that exists, or one that is trained on the training captions before the first step;
/// with neither, the checkpoint's with another cleaning of texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerConfig {
    /// A folder with `tokenizer.json`, or `vocab.json` and `merges.txt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// The largest vocabulary of one that is trained: byte-pair encoding in CLIP's form. The text tower's
    /// `vocab_size` and `eos_token_id` become the tokenizer's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// How texts are cleaned first; none: as the folder or checkpoint has it, and not at all for one that is
    /// trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_clean: Option<TextClean>,
}

impl TokenizerConfig {
    /// Whether it brings a tokenizer, and not only a cleaning.
    pub(crate) fn is_tokenizer(&self) -> bool {
        self.from.is_some() || self.vocab_size.is_some()
    }
}

/// `[data]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// What is trained on.
    pub train: DatasetConfig,
    /// What is evaluated on, by name.
    #[serde(default)]
    pub eval: BTreeMap<String, DatasetConfig>,
    /// Random changes of training images.
    #[serde(default)]
    pub augment: Augment,
    /// In training, the share of samples that are shown with their canonical (first) caption; the others draw
    /// one of all.
    #[serde(default)]
    pub canonical_share: f64,
    /// The colour behind transparent images, 0 to 255.
    #[serde(default = "white")]
    pub background: [u8; 3],
    /// In training, whether a JPEG whose crop is several times as large as what the model sees is decoded at
    /// a half, a quarter or an eighth of its size: faster, and off by a level or two. Evaluation decodes
    /// whole images.
    #[serde(default = "yes")]
    pub fast_decode: bool,
    /// Threads that decode; 0: one a core.
    #[serde(default)]
    pub workers: usize,
    /// Batches that are decoded ahead.
    #[serde(default = "default_prefetch")]
    pub prefetch: usize,
    /// Bytes that what is decoded ahead may take.
    #[serde(default = "default_prefetch_bytes")]
    pub prefetch_bytes: usize,
    /// Samples that are shuffled among each other, at least, where data is read in blocks: shards, Parquet.
    #[serde(default = "default_shuffle_window")]
    pub shuffle_window: usize,
    /// Whether samples are drawn with replacement.
    #[serde(default)]
    pub resample: bool,
    /// Different samples that may be unreadable before the run stops.
    #[serde(default)]
    pub max_bad_samples: usize,
}

fn white() -> [u8; 3] {
    [255; 3]
}
fn default_prefetch() -> usize {
    LoaderConfig::default().prefetch
}
fn default_prefetch_bytes() -> usize {
    LoaderConfig::default().prefetch_bytes
}
fn default_shuffle_window() -> usize {
    LoaderConfig::default().shuffle_window
}

/// `[eval]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipEvalConfig {
    /// Steps between evaluations; 0: only at the end.
    pub every: u64,
    /// Images or texts that are embedded at once.
    pub batch_size: usize,
    /// A file of prompt templates for zero-shot classification, one a line with `{}` for the label; none:
    /// seven good ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templates: Option<PathBuf>,
}

impl Default for ClipEvalConfig {
    fn default() -> Self {
        Self { every: 0, batch_size: 64, templates: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/clip");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
        assert!(files.len() >= 5);
        for file in files {
            ClipRunConfig::from_source(&ConfigFile::read(&file, &[]).unwrap())
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn a_tokenizer_is_named_or_trained_or_the_checkpoints_with_another_cleaning() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/clip/emoji-vit-tiny.toml");
        let parse = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&set| set.to_owned()).collect();
            ClipRunConfig::from_source(&ConfigFile::read(&file, &overrides).unwrap())
                .map(|config| config.tokenizer.unwrap_or_default())
                .map_err(|error| error.to_string())
        };
        let trained = parse(&["tokenizer.text_clean=lower"]).unwrap();
        assert_eq!((trained.vocab_size.is_some(), trained.text_clean), (true, Some(TextClean::Lower)));
        assert!(parse(&["tokenizer.from=folder"]).unwrap_err().contains("keep one"));
        assert!(
            parse(&["tokenizer={ text_clean = \"lower\" }"])
                .unwrap_err()
                .contains("needs `from` or `vocab_size`")
        );
        assert!(parse(&["tokenizer.text_clean=upper"]).unwrap_err().contains("text_clean"));
        assert!(parse(&["tokenizer.vocab=5"]).unwrap_err().contains("vocab_size"));
    }
}
