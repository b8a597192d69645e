//! The configuration of a run with `run.task = "vlm"`.

use super::conversation::{Content, PromptsConfig};
use super::{ConnectorConfig, ImageSplitting, Vlm, VlmConfig, VlmFamily, VlmFolder};
use crate::metrics::vqa::Protocol;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, linear_names};
use mm_text::CHAT_TOKENS;
use mm_text::decoder::LlamaConfig;
use mm_text::generate::GenerationConfig;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use mm_vision::VitConfig;
use serde::{Deserialize, Serialize};

/// Patches along a side of what becomes one vector, where a new model does not say.
const SCALE_FACTOR: i64 = 2;

/// A run with `run.task = "vlm"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlmRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: ModelConfig,
    /// Low-rank adapters, which are then all that is trained; none: the weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The tokenizer of a new model; none: the checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<ChatTokenizerConfig>,
    /// How samples become conversations.
    #[serde(default)]
    pub input: InputConfig,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// The loss.
    #[serde(default)]
    pub loss: LossConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
    /// How answers are generated in evaluations; the saved model has it as its default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerationConfig>,
    /// How answers are measured.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

/// `[model]`: a model `from` a checkpoint, or a new one in SmolVLM's form.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The model to start from: a folder or a hub name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The image tower of a new model, with `variant = "siglip"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<VitConfig>,
    /// The decoder of a new model; its `vocab_size` becomes that of the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<LlamaConfig>,
    /// The patches along a side of what becomes one vector of a new model; none: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_factor: Option<i64>,
    /// Which parts are trained. The others stay as they are: the image tower then runs as in inference.
    pub train: TrainedParts,
}

/// The parts of a model that are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedParts {
    /// The whole model.
    #[default]
    All,
    /// The connector and the decoder.
    Text,
    /// The connector alone: LLaVA's first stage (Liu et al. 2023, section 4.2).
    Connector,
}

/// `[tokenizer]`: one that is trained on the texts of the training set before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatTokenizerConfig {
    /// The largest vocabulary: byte-pair encoding over bytes.
    pub vocab_size: usize,
}

/// `[input]`: how samples become conversations.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// What of a sample becomes a conversation; none: the first of its messages, its document, its questions
    /// and its captions that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// What the user says about captions and documents.
    pub prompts: PromptsConfig,
    /// The largest number of tokens of a conversation, those of its images included; longer ones are bad
    /// samples, because cut ones would end inside an image or an answer.
    pub max_tokens: usize,
    /// Whether large images are split into tiles: [`ImageSplitting`] says what that costs.
    pub image_splitting: bool,
    /// Whether short conversations share rows of `max_tokens` tokens. The losses are the same; it saves the
    /// work of padding where lengths differ much.
    pub packing: bool,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self {
            content: None,
            prompts: PromptsConfig::default(),
            max_tokens: 1024,
            image_splitting: false,
            packing: false,
        }
    }
}

impl InputConfig {
    /// Whether images are split.
    pub(crate) fn splitting(&self) -> ImageSplitting {
        if self.image_splitting { ImageSplitting::On } else { ImageSplitting::Off }
    }
}

/// `[loss]`: the loss.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// The share of each label's probability that all tokens get (Szegedy et al. 2016, section 7).
    pub label_smoothing: f64,
}

/// `[metrics]`: how answers are measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// How answers to questions are compared with several given ones.
    pub protocol: Protocol,
    /// Whether questions are also answered about a blank image: what that reaches, a model that looks has to
    /// beat.
    pub blind: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { protocol: Protocol::default(), blind: true }
    }
}

impl ModelConfig {
    /// The model that is written out, with a vocabulary of `vocab_size` tokens.
    pub(crate) fn new_model(&self, vocab_size: i64) -> Option<VlmConfig> {
        let (vision, text) = (self.image.clone()?, self.text.clone()?);
        let image_token = CHAT_TOKENS.len() as u32 - 1; // the last of them
        Some(VlmConfig {
            family: VlmFamily::SmolVlm,
            vision,
            vision_use_head: false,
            text: LlamaConfig { vocab_size, ..text },
            connector: ConnectorConfig::PixelShuffle {
                scale_factor: self.scale_factor.unwrap_or(SCALE_FACTOR),
            },
            image_token_id: image_token,
        })
    }

    /// Whether the parameter `name` of a model of `family` stays as it is.
    pub(crate) fn is_frozen(&self, family: VlmFamily, name: &str) -> bool {
        let is_below = |root: &str| name.strip_prefix(root).is_some_and(|name| name.starts_with('.'));
        match self.train {
            TrainedParts::All => false,
            TrainedParts::Text => is_below(family.tower_root()),
            TrainedParts::Connector => !is_below(family.connector_root()),
        }
    }

    fn validate(&self, file: &ConfigFile, vocab_size: usize) -> Result<(), ConfigError> {
        let error = |key: &str, problem: &str| {
            Err(file.error(&format!("model.{key}"), format!("`model.{key}`: {problem}")))
        };
        let written = [
            ("image", self.image.is_some()),
            ("text", self.text.is_some()),
            ("scale_factor", self.scale_factor.is_some()),
        ];
        if self.from.is_some() {
            return match written.iter().find(|(_, is_written)| *is_written) {
                Some((key, _)) => error(key, "the checkpoint that `model.from` names has it already"),
                None => Ok(()),
            };
        }
        if let Some((key, _)) = written[..2].iter().find(|(_, is_written)| !is_written) {
            return error(key, &format!("missing (`[model.{key}]`, or `model.from` for a whole model)"));
        }
        if self.train != TrainedParts::All {
            return error("train", "the other parts have random weights: set `model.from`, or train all");
        }
        match self.new_model(vocab_size as i64).map_or(Ok(()), |model| model.validate()) {
            Ok(()) => Ok(()),
            Err(problem) => error("image", &problem.to_string()),
        }
    }
}

impl TaskConfig for VlmRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let is_new = self.model.from.is_none();
        let vocab_size = self.tokenizer.map(|tokenizer| tokenizer.vocab_size);
        // Of a model without a tokenizer the rest is still checked.
        self.model.validate(file, vocab_size.unwrap_or(1 << 10))?;
        file.check(vocab_size.is_some() || !is_new, "tokenizer", "a new model needs `vocab_size`")?;
        let problem = "the checkpoint that `model.from` names has a tokenizer already";
        file.check(vocab_size.is_none() || is_new, "tokenizer", problem)?;
        let smallest = 256 + CHAT_TOKENS.len();
        let problem = format!("must be at least {smallest}, the bytes and the marks of a chat");
        file.check(vocab_size.is_none_or(|size| size >= smallest), "tokenizer.vocab_size", problem)?;
        if let Some(lora) = &self.lora {
            let layers = |base: &str| -> crate::Result<Vec<String>> {
                let config = VlmFolder::open(base)?.config;
                linear_names(config.family.lora_names(), |path| Vlm::new(path, &config))
            };
            let freezing = [("train", self.model.train != TrainedParts::All)];
            lora.validate_with_base(file, self.model.from.as_deref(), &freezing, layers)?;
        }
        file.check(self.input.max_tokens > 2, "input.max_tokens", "must be at least 3")?;
        let PromptsConfig { caption, document } = &self.input.prompts;
        for (key, prompt) in [("caption", caption), ("document", document)] {
            let key = format!("input.prompts.{key}");
            file.check(!prompt.trim().is_empty(), &key, "must not be empty")?;
        }
        let smoothing = self.loss.label_smoothing;
        let problem = format!("must be at least 0 and below 1, is {smoothing}");
        file.check((0.0..1.0).contains(&smoothing), "loss.label_smoothing", problem)?;
        if let Some(generate) = &self.generate {
            generate.validate().map_err(|error| file.error("generate", error.to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlm::VlmTask;
    use mm_train::read_config;
    use std::path::{Path, PathBuf};

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/vlm");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
        assert!(files.len() >= 3);
        for file in files {
            read_config::<VlmTask>(&mut ConfigFile::read(&file, &[]).unwrap())
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn the_parts_that_are_not_trained_are_told_by_their_names() {
        let of = |train| ModelConfig { train, ..ModelConfig::default() };
        let tower = "model.vision_model.post_layernorm.weight";
        let connector = "model.connector.modality_projection.proj.weight";
        let text = "model.text_model.norm.weight";
        for (train, expected) in [
            (TrainedParts::All, [false, false, false]),
            (TrainedParts::Text, [true, false, false]),
            (TrainedParts::Connector, [true, false, true]),
        ] {
            let found = [tower, connector, text].map(|name| of(train).is_frozen(VlmFamily::SmolVlm, name));
            assert_eq!(found, expected, "{train:?}");
        }
    }
}
