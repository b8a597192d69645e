//! The configuration of a run with `run.task = "clip"`.

use crate::folder::ModelFolder;
use crate::{Clip, ModelConfig};
use mm_core::checkpoint::hf_names;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, linear_names};
use mm_dist::{ContrastiveConfig, Logits};
use mm_image::Augment;
use mm_text::TextClean;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A run with `run.task = "clip"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: ModelConfig,
    /// Low-rank adapters, which are then all that is trained; none: the weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The tokenizer; none: that of the checkpoint that the text tower comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// How samples become training pairs.
    #[serde(default)]
    pub input: InputConfig,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// How the loss is computed.
    #[serde(default)]
    pub loss: LossConfig,
    /// When and how the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
    /// Zero-shot classification in evaluations.
    #[serde(default)]
    pub zero_shot: ZeroShotConfig,
}

/// `[input]`: how samples become training pairs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// Random changes of training images.
    pub augment: Augment,
    /// The share of samples that are shown with their canonical (first) caption; the others draw one of all.
    pub canonical_share: f64,
}

/// `[loss]`: how the contrastive loss is computed. The numbers are the same for every choice.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// The part of the logits of the whole batch that a process holds.
    pub logits: Logits,
    /// Rows and columns that are held at once, with `logits = "tiled"`.
    pub tile: i64,
    /// GradCache (Gao et al. 2021): the loss compares all samples of a micro-batch while only this many of a
    /// process are embedded with a graph at once, at the price of embedding each twice; none: all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_cache_chunk: Option<usize>,
}

impl Default for LossConfig {
    fn default() -> Self {
        let ContrastiveConfig { logits, tile } = ContrastiveConfig::default();
        Self { logits, tile, grad_cache_chunk: None }
    }
}

/// `[zero_shot]`: zero-shot classification of evaluation sets with labels.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZeroShotConfig {
    /// A file of prompt templates, one a line with `{}` for the label; none: the seven of Radford et al. 2021
    /// that carry most of the gain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templates: Option<PathBuf>,
}

impl TaskConfig for ClipRunConfig {
    const RENAMED: &'static [(&'static str, &'static str)] = &[
        ("data.augment", "input.augment"),
        ("data.canonical_share", "input.canonical_share"),
        ("train.grad_cache_chunk", "loss.grad_cache_chunk"),
        ("eval.templates", "zero_shot.templates"),
    ];

    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let LossConfig { tile, grad_cache_chunk, .. } = self.loss;
        file.check(tile > 0, "loss.tile", format!("must be at least 1, is {tile}"))?;
        file.check(grad_cache_chunk != Some(0), "loss.grad_cache_chunk", "must be at least 1")?;
        self.model.validate(file)?;
        if let Some(lora) = &self.lora {
            let layers = |base: &str| -> crate::Result<Vec<String>> {
                let folder = ModelFolder::open(base)?;
                let config = folder.clip()?;
                linear_names(hf_names, |path| Clip::new(path, config))
            };
            let freezing = [
                ("lock_image", self.model.lock_image.is_some()),
                ("lock_text", self.model.lock_text.is_some()),
            ];
            lora.validate_with_base(file, self.model.from.as_deref(), &freezing, layers)?;
        }
        let tokenizer = self.tokenizer.clone().unwrap_or_default();
        let is_from_checkpoint = self.model.from.is_some() || self.model.text_from.is_some();
        file.check(
            tokenizer.is_tokenizer() || is_from_checkpoint,
            "tokenizer",
            "needs `from` or `vocab_size` unless the text tower comes from a checkpoint",
        )?;
        file.check(
            tokenizer.from.is_none() || tokenizer.vocab_size.is_none(),
            "tokenizer.vocab_size",
            "is for a tokenizer that is trained, and `tokenizer.from` names one that exists: keep one",
        )?;
        file.check(
            tokenizer.min_word_count.is_none(),
            "tokenizer.min_word_count",
            "is for `run.task = \"vqa\"`",
        )?;
        let share = self.input.canonical_share;
        let problem = format!("must be from 0 to 1, is {share}");
        file.check((0.0..=1.0).contains(&share), "input.canonical_share", &problem)?;
        self.input.augment.check().map_err(|error| file.error("input.augment", error.to_string()))
    }
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
    /// Trains a tokenizer of whole words, those that the texts have at least this often, as word vectors have
    /// them; for questions alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_word_count: Option<u64>,
    /// How texts are cleaned first; none: as the folder or checkpoint has it, and not at all for one that is
    /// trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_clean: Option<TextClean>,
}

impl TokenizerConfig {
    /// Whether it brings a tokenizer, and not only a cleaning.
    pub fn is_tokenizer(&self) -> bool {
        self.from.is_some() || self.vocab_size.is_some() || self.min_word_count.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClipTask;
    use mm_train::read_config;
    use std::path::Path;

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/clip");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
        assert!(files.len() >= 5);
        for file in files {
            read_config::<ClipTask>(&mut ConfigFile::read(&file, &[]).unwrap())
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn a_tokenizer_is_named_or_trained_or_the_checkpoints_with_another_cleaning() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/clip/emoji-vit-tiny.toml");
        let parse = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&set| set.to_owned()).collect();
            read_config::<ClipTask>(&mut ConfigFile::read(&file, &overrides).unwrap())
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
