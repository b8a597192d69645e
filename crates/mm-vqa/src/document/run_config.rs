//! The configuration of a run with `run.task = "document"`.

use super::folder::DocumentFolder;
use super::{DocumentModel, DocumentModelConfig};
use mm_core::checkpoint::hf_names;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, linear_names};
use mm_text::decoder::MBartDecoderConfig;
use mm_text::generate::GenerationConfig;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use mm_vision::SwinConfig;
use serde::{Deserialize, Serialize};

/// A run with `run.task = "document"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: ModelConfig,
    /// Low-rank adapters, which are then all that is trained; none: the weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How samples become pages with fields.
    #[serde(default)]
    pub input: InputConfig,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// The losses.
    #[serde(default)]
    pub loss: LossConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
    /// How fields are generated in evaluations; the saved model has it as its default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerationConfig>,
    /// What is measured beside the fields.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

/// `[model]`: a Donut `from` a checkpoint, or a new one, whose tokenizer has a token for each character of
/// the training set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The model to start from: a folder or a hub name. Tags of fields that its tokenizer does not have are
    /// added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The image encoder of a new model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<SwinConfig>,
    /// The decoder of a new model; its `vocab_size` becomes that of the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<MBartDecoderConfig>,
    /// Whether the image encoder stays as it is: it then runs as in inference, without gradients.
    pub freeze_encoder: bool,
}

/// `[input]`: how samples become pages with fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// The schema of the documents, as the data set names it. Its token, `<s_SCHEMA>`, is the prompt.
    pub schema: String,
    /// The largest number of tokens of a document in training, prompt and end token included; longer ones are
    /// bad samples, because a model that learns cut ones would stop in the middle of a field.
    pub max_tokens: usize,
    /// Whether the model sees a blank page in place of each page, in training and evaluation: what such a
    /// model reaches, a model that reads has to beat.
    pub blind: bool,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self { schema: "invoice".to_owned(), max_tokens: 256, blind: false }
    }
}

/// `[loss]`: the cross-entropy of the next token, and two losses for data sets that know where each character
/// is printed. From scratch, a decoder finds the characters late: these show it where to look, and the
/// encoder what is there.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// The share of each label's probability that all tokens get (Szegedy et al. 2016, section 7).
    pub label_smoothing: f64,
    /// The factor of the cross-entropy of the characters that are printed in each cell of the encoder's grid,
    /// by an output layer that is not part of the saved model: text spotting as pre-training.
    pub characters: f64,
    /// The factor of the negative logarithm of the cross-attention to the cell in which a token is printed
    /// (supervised attention, Liu et al. 2016, "Neural Machine Translation with Supervised Attention").
    pub attention: f64,
}

/// `[metrics]`: what is measured beside the fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// A model that was trained with `input.blind`, a folder: its score stands beside that of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blind: Option<String>,
}

impl ModelConfig {
    /// The model that is written out.
    pub(crate) fn new_model(&self) -> Option<DocumentModelConfig> {
        Some(DocumentModelConfig { encoder: self.encoder.clone()?, decoder: self.decoder.clone()? })
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let error = |key: &str, problem: &str| {
            Err(file.error(&format!("model.{key}"), format!("`model.{key}`: {problem}")))
        };
        let written = [("encoder", self.encoder.is_some()), ("decoder", self.decoder.is_some())];
        for (key, is_written) in written {
            match (self.from.is_some(), is_written) {
                (true, true) => {
                    return error(key, "the checkpoint that `model.from` names has it already");
                }
                (false, false) => {
                    return error(
                        key,
                        &format!("missing (`[model.{key}]`, or `model.from` for a whole model)"),
                    );
                }
                _ => {}
            }
        }
        if self.freeze_encoder && self.from.is_none() {
            return error("freeze_encoder", "the encoder has random weights: set `model.from`");
        }
        match self.new_model().map_or(Ok(()), |model| model.validate()) {
            Ok(()) => Ok(()),
            Err(problem) => error("encoder", &problem.to_string()),
        }
    }
}

impl TaskConfig for DocumentRunConfig {
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
                let folder = DocumentFolder::open(base)?;
                linear_names(hf_names, |path| DocumentModel::new(path, &folder.config))
            };
            let freezing = [("freeze_encoder", self.model.freeze_encoder)];
            lora.validate_with_base(file, self.model.from.as_deref(), &freezing, layers)?;
        }
        let InputConfig { schema, max_tokens, .. } = &self.input;
        let is_word = !schema.is_empty() && schema.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        file.check(is_word, "input.schema", format!("must be a word, is {schema:?}"))?;
        file.check(*max_tokens > 2, "input.max_tokens", "must be at least 3")?;
        let LossConfig { label_smoothing: smoothing, characters, attention } = self.loss;
        let problem = format!("must be at least 0 and below 1, is {smoothing}");
        file.check((0.0..1.0).contains(&smoothing), "loss.label_smoothing", problem)?;
        for (key, factor) in [("loss.characters", characters), ("loss.attention", attention)] {
            let is_factor = factor.is_finite() && factor >= 0.0;
            file.check(is_factor, key, format!("must be a number of at least 0, is {factor}"))?;
            let is_blind = self.input.blind && factor > 0.0;
            file.check(!is_blind, key, "nothing is printed on the blank page of `input.blind`: set it to 0")?;
        }
        let trains_head = self.lora.is_none() && !self.model.freeze_encoder;
        let problem =
            "trains the encoder with an output layer of its own: leave out `[lora]` and `freeze_encoder`";
        file.check(characters == 0.0 || trains_head, "loss.characters", problem)?;
        if let Some(generate) = &self.generate {
            generate.validate().map_err(|error| file.error("generate", error.to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::DocumentTask;
    use mm_train::read_config;
    use std::path::{Path, PathBuf};

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/document");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
        assert!(files.len() >= 2);
        for file in files {
            read_config::<DocumentTask>(&mut ConfigFile::read(&file, &[]).unwrap())
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
