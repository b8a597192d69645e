//! The configuration of a run with `run.task = "caption"`.

use crate::folder::{CaptionerFolder, NAMES};
use crate::reward_config::{PpoConfig, ScstConfig};
use crate::{Captioner, CaptionerConfig, CaptionerVariant, PrefixConfig};
use mm_clip::TokenizerConfig;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, linear_names};
use mm_image::Augment;
use mm_text::decoder::TextDecoderConfig;
use mm_text::generate::GenerationConfig;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use mm_vision::ImageTowerConfig;
use serde::{Deserialize, Serialize};

/// A run with `run.task = "caption"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: ModelConfig,
    /// Low-rank adapters, which are then all that is trained; none: the weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The tokenizer of a new decoder; none: the checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// How samples become images with captions.
    #[serde(default)]
    pub input: InputConfig,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// The loss of teacher forcing.
    #[serde(default)]
    pub loss: LossConfig,
    /// Self-critical training by rewards; none: teacher forcing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scst: Option<ScstConfig>,
    /// Proximal policy optimization by rewards; none: teacher forcing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppo: Option<PpoConfig>,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
    /// How captions are generated in evaluations; the saved model has it as its default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerationConfig>,
    /// What is measured beside BLEU, ROUGE-L and CIDEr.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

/// `[model]`: a captioner `from` a checkpoint, or a new one of an image tower and a decoder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The captioner to start from: a folder or a hub name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The checkpoint that the image tower comes from: a CLIP, a SigLIP, a ViT or a ResNet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_from: Option<String>,
    /// The image tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageTowerConfig>,
    /// The decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<TextDecoderConfig>,
    /// Lets the decoder read the image as a prefix made from its CLIP embedding; none: by cross-attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<PrefixConfig>,
    /// Whether the image tower stays as it is: it then runs as in inference, without gradients.
    pub freeze_image: bool,
}

/// `[input]`: how samples become images with captions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// Random changes of training images.
    pub augment: Augment,
    /// The share of samples that are shown with their canonical (first) caption; the others draw one of all.
    pub canonical_share: f64,
    /// Text before each caption, which is given and not learned: "a picture of".
    pub prompt: String,
    /// The largest number of tokens of a caption in training, prompt and end token included; longer ones are
    /// cut and counted.
    pub max_tokens: usize,
    /// The references that rewards and evaluations compare with.
    pub references: References,
}

/// The references of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum References {
    /// All captions of the sample.
    #[default]
    All,
    /// Its first one.
    Canonical,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self {
            augment: Augment::default(),
            canonical_share: 0.0,
            prompt: String::new(),
            max_tokens: 64,
            references: References::default(),
        }
    }
}

/// `[loss]`: the loss of teacher forcing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// The share of each label's probability that all tokens get (Szegedy et al. 2016, section 7).
    pub label_smoothing: f64,
}

/// `[metrics]`: what is measured beside BLEU, ROUGE-L and CIDEr.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// The CLIP of CLIPScore and RefCLIPScore: a folder or a hub name; none: they are not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<String>,
}

impl ModelConfig {
    /// The captioner that is written out, with the tower `image` of `image_from` where that is set.
    pub(crate) fn captioner(&self, image: Option<ImageTowerConfig>) -> Option<CaptionerConfig> {
        let variant = self.prefix.map_or(CaptionerVariant::EncoderDecoder, CaptionerVariant::Prefix);
        Some(CaptionerConfig {
            image: image.or_else(|| self.image.clone())?,
            decoder: self.decoder.clone()?,
            variant,
        })
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let error = |key: &str, problem: &str| {
            Err(file.error(&format!("model.{key}"), format!("`model.{key}`: {problem}")))
        };
        let written = [
            ("image_from", self.image_from.is_some()),
            ("image", self.image.is_some()),
            ("decoder", self.decoder.is_some()),
            ("prefix", self.prefix.is_some()),
        ];
        if self.from.is_some() {
            return match written.iter().find(|(_, is_written)| *is_written) {
                Some((key, _)) => error(key, "the checkpoint that `model.from` names has it already"),
                None => Ok(()),
            };
        }
        if self.decoder.is_none() {
            return error("decoder", "missing (`[model.decoder]`, or `model.from` for a whole captioner)");
        }
        match (&self.image_from, &self.image) {
            (None, None) => return error("image", "missing (`[model.image]` or `model.image_from`)"),
            (Some(_), Some(_)) => {
                return error("image", "is written out and taken from a checkpoint: keep one");
            }
            _ => {}
        }
        if self.freeze_image && self.image_from.is_none() {
            return error("freeze_image", "the image tower has random weights: set `model.image_from`");
        }
        match self.captioner(None).map_or(Ok(()), |captioner| captioner.validate()) {
            Ok(()) => Ok(()),
            Err(problem) => error("decoder", &problem.to_string()),
        }
    }
}

impl TaskConfig for CaptionRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        self.model.validate(file)?;
        if let Some(lora) = &self.lora {
            let layers = |base: &str| -> crate::Result<Vec<String>> {
                let folder = CaptionerFolder::open(base)?;
                linear_names(NAMES, |path| Captioner::new(path, &folder.description.model))
            };
            let freezing = [("freeze_image", self.model.freeze_image)];
            lora.validate_with_base(file, self.model.from.as_deref(), &freezing, layers)?;
        }
        let is_new = self.model.from.is_none();
        let has_tokenizer = self.tokenizer.as_ref().is_some_and(TokenizerConfig::is_tokenizer);
        let has_words = self.tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.min_word_count.is_some());
        file.check(!has_words, "tokenizer.min_word_count", "is for `run.task = \"vqa\"`")?;
        file.check(has_tokenizer || !is_new, "tokenizer", "a new decoder needs `from` or `vocab_size`")?;
        file.check(
            !has_tokenizer || is_new,
            "tokenizer",
            "the checkpoint that `model.from` names has a tokenizer already",
        )?;
        let (share, smoothing) = (self.input.canonical_share, self.loss.label_smoothing);
        file.check(
            (0.0..=1.0).contains(&share),
            "input.canonical_share",
            format!("must be from 0 to 1, is {share}"),
        )?;
        file.check(
            (0.0..1.0).contains(&smoothing),
            "loss.label_smoothing",
            format!("must be at least 0 and below 1, is {smoothing}"),
        )?;
        file.check(self.input.max_tokens >= 2, "input.max_tokens", "must be at least 2")?;
        if let Some(generate) = &self.generate {
            generate.validate().map_err(|error| file.error("generate", error.to_string()))?;
        }
        if let Some(scst) = &self.scst {
            scst.validate(file)?;
        }
        if let Some(ppo) = &self.ppo {
            ppo.validate(self, file)?;
        }
        self.input.augment.check().map_err(|error| file.error("input.augment", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CaptionTask;
    use mm_train::read_config;
    use std::path::{Path, PathBuf};

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let files = std::fs::read_dir(configs.join("caption")).unwrap().map(|entry| entry.unwrap().path());
        let files = files.chain([configs.join("rlhf/caption-ppo.toml")]);
        let files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
        assert!(files.len() >= 8);
        for file in files {
            read_config::<CaptionTask>(&mut ConfigFile::read(&file, &[]).unwrap())
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
