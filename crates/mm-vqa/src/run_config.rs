//! The configuration of a run with `run.task = "vqa"`.

use crate::answering::{AnswerMode, NUM_CANDIDATES};
use crate::co_attention::{CoAttentionConfig, FusionConfig};
use crate::folder::{VqaConfig, VqaFolder};
use crate::metrics::vqa::Protocol;
use crate::{AnswersConfig, VqaModel, VqaPipeline};
use mm_clip::TokenizerConfig;
use mm_core::checkpoint::hf_names;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, linear_names};
use mm_image::Augment;
use mm_text::QuestionEncoderConfig;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use mm_vision::ImageTowerConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A run with `run.task = "vqa"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqaRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: ModelConfig,
    /// Low-rank adapters, which are then all that is trained; none: the weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The tokenizer of a new model; none: the checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// Which answers of the training set can be given; none: those of the checkpoint, or the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswersConfig>,
    /// How samples become images with questions.
    #[serde(default)]
    pub input: InputConfig,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// The loss of a classifier.
    #[serde(default)]
    pub loss: LossConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
    /// How a model that decodes answers finds them in evaluations.
    #[serde(default)]
    pub answering: AnsweringConfig,
    /// How answers are measured.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

/// `[model]`: a model `from` a checkpoint, or a new classifier of an image tower, a question encoder and a
/// fusion of both.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The model to start from: a folder or a hub name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The checkpoint that the image tower comes from: a CLIP, a SigLIP, a ViT or a ResNet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_from: Option<String>,
    /// The image tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageTowerConfig>,
    /// The question encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<QuestionEncoderConfig>,
    /// A GloVe file with the initial word vectors of an LSTM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glove: Option<PathBuf>,
    /// How image and question are joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fusion: Option<FusionConfig>,
    /// Whether the image tower stays as it is: it then runs as in inference, without gradients.
    pub freeze_image: bool,
}

/// `[input]`: how samples become images with questions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// Random changes of training images.
    pub augment: Augment,
    /// Questions drawn for each image of a batch, which is read once for all of them.
    pub questions_per_image: usize,
    /// The largest number of tokens of a question; longer ones are cut and counted.
    pub max_question_tokens: usize,
    /// Whether the model sees an image of the mean color in place of each image, in training and evaluation:
    /// what such a model reaches, a model with images has to beat.
    pub blind: bool,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self { augment: Augment::default(), questions_per_image: 1, max_question_tokens: 24, blind: false }
    }
}

/// `[loss]`: the loss.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// The loss over the classes of a classifier.
    pub kind: LossKind,
    /// Of a decoder: the share of each label's probability that all tokens get (Szegedy et al. 2016, section
    /// 7).
    pub label_smoothing: f64,
}

/// The loss over the classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Binary cross-entropy of each class with its soft score, summed over the classes (Teney et al. 2018).
    #[default]
    Bce,
    /// Cross-entropy with the soft scores as a distribution.
    Softmax,
}

/// `[answering]`: how a model that decodes answers, as BLIP, finds them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnsweringConfig {
    /// By a ranking of the list of answers or by generation; none: by a ranking where the model has a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<AnsweringBy>,
    /// The candidates of a ranking that are scored whole.
    pub num_candidates: usize,
}

/// How answers are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweringBy {
    /// The likelihood of each answer of the list.
    Rank,
    /// The model's defaults of generation.
    Generate,
}

impl Default for AnsweringConfig {
    fn default() -> Self {
        Self { by: None, num_candidates: NUM_CANDIDATES }
    }
}

impl AnsweringConfig {
    /// The way for `pipeline`.
    pub(crate) fn mode(&self, pipeline: &VqaPipeline) -> AnswerMode {
        let (is_decoder, parts) = (matches!(pipeline.config, VqaConfig::Blip(_)), &pipeline.parts);
        match (self.by, &parts.answers) {
            (Some(AnsweringBy::Generate), _) if is_decoder => AnswerMode::Generate(parts.generation.clone()),
            (Some(AnsweringBy::Rank) | None, Some(answers)) if is_decoder => {
                AnswerMode::Rank { answers: answers.clone(), num_candidates: self.num_candidates }
            }
            _ => AnswerMode::Default,
        }
    }
}

/// `[metrics]`: how answers are measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// How answers are compared with several given ones.
    pub protocol: Protocol,
    /// The share of questions that are answered where the model abstains from the least certain ones.
    pub coverage: f64,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { protocol: Protocol::default(), coverage: 0.8 }
    }
}

impl ModelConfig {
    /// The classifier that is written out, with `classes` answers and the tower `image` of `image_from` where
    /// that is set.
    pub(crate) fn co_attention(
        &self,
        image: Option<ImageTowerConfig>,
        classes: i64,
    ) -> Option<CoAttentionConfig> {
        Some(CoAttentionConfig {
            image: image.or_else(|| self.image.clone())?,
            question: self.question.clone()?,
            fusion: self.fusion.clone()?,
            classes,
        })
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let error = |key: &str, problem: &str| {
            Err(file.error(&format!("model.{key}"), format!("`model.{key}`: {problem}")))
        };
        let written = [
            ("image_from", self.image_from.is_some()),
            ("image", self.image.is_some()),
            ("question", self.question.is_some()),
            ("fusion", self.fusion.is_some()),
            ("glove", self.glove.is_some()),
        ];
        if self.from.is_some() {
            return match written.iter().find(|(_, is_written)| *is_written) {
                Some((key, _)) => error(key, "the checkpoint that `model.from` names has it already"),
                None => Ok(()),
            };
        }
        if self.question.is_none() {
            return error("question", "missing (`[model.question]`, or `model.from` for a whole model)");
        }
        if self.fusion.is_none() {
            return error("fusion", "missing (`[model.fusion]`)");
        }
        match (&self.image_from, &self.image) {
            (None, None) => return error("image", "missing (`[model.image]` or `model.image_from`)"),
            (Some(_), Some(_)) => {
                return error("image", "is written out and taken from a checkpoint: keep one");
            }
            _ => {}
        }
        if self.glove.is_some() && !matches!(self.question, Some(QuestionEncoderConfig::Lstm(_))) {
            return error("glove", "word vectors are for `model.question.kind = \"lstm\"`");
        }
        if self.freeze_image && self.image_from.is_none() {
            return error("freeze_image", "the image tower has random weights: set `model.image_from`");
        }
        match self.co_attention(None, 2).map_or(Ok(()), |config| config.validate()) {
            Ok(()) => Ok(()),
            Err(problem) => error("fusion", &problem.to_string()),
        }
    }
}

impl TaskConfig for VqaRunConfig {
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
                let folder = VqaFolder::open(base)?;
                linear_names(hf_names, |path| VqaModel::new(path, &folder.config))
            };
            let freezing = [("freeze_image", self.model.freeze_image)];
            lora.validate_with_base(file, self.model.from.as_deref(), &freezing, layers)?;
        }
        let is_new = self.model.from.is_none();
        let has_tokenizer = self.tokenizer.as_ref().is_some_and(TokenizerConfig::is_tokenizer);
        file.check(
            has_tokenizer || !is_new,
            "tokenizer",
            "a new model needs `vocab_size`, `min_word_count` or `from`",
        )?;
        file.check(
            !has_tokenizer || is_new,
            "tokenizer",
            "the checkpoint that `model.from` names has a tokenizer already",
        )?;
        if let Some(answers) = &self.answers {
            file.check(answers.min_count > 0, "answers.min_count", "must be at least 1")?;
            file.check(answers.max > 1, "answers.max", "must be at least 2")?;
        }
        let InputConfig { questions_per_image, max_question_tokens, .. } = self.input;
        file.check(questions_per_image > 0, "input.questions_per_image", "must be at least 1")?;
        file.check(max_question_tokens > 2, "input.max_question_tokens", "must be at least 3")?;
        file.check(self.answering.num_candidates > 0, "answering.num_candidates", "must be at least 1")?;
        let smoothing = self.loss.label_smoothing;
        let problem = format!("must be at least 0 and below 1, is {smoothing}");
        file.check((0.0..1.0).contains(&smoothing), "loss.label_smoothing", &problem)?;
        let coverage = self.metrics.coverage;
        let problem = format!("must be above 0 and at most 1, is {coverage}");
        file.check(coverage > 0.0 && coverage <= 1.0, "metrics.coverage", &problem)?;
        self.input.augment.check().map_err(|error| file.error("input.augment", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VqaTask;
    use mm_train::read_config;
    use std::path::{Path, PathBuf};

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/vqa");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
        assert!(files.len() >= 4);
        for file in files {
            read_config::<VqaTask>(&mut ConfigFile::read(&file, &[]).unwrap())
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
