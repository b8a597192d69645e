//! The configuration of a run with `run.task = "diffusion"`.

use super::buckets::BucketsConfig;
use super::cache::CacheConfig;
use super::inversion::TextualInversionConfig;
use crate::objective::{DdpmConfig, FlowConfig};
use crate::sd3::Sd3Config;
use mm_clip::TokenizerConfig;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::LoraConfig;
use mm_text::ClipTextConfig;
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use serde::{Deserialize, Serialize};

/// A run with `run.task = "diffusion"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: ModelConfig,
    /// Low-rank adapters of the denoiser, which are then all that is trained; none: its weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// A new token of the text encoders, which is then all that is trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub textual_inversion: Option<TextualInversionConfig>,
    /// The tokenizer of a new text encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// What the model predicts, and the loss.
    #[serde(default)]
    pub objective: ObjectiveConfig,
    /// How samples become images with prompts.
    #[serde(default)]
    pub input: InputConfig,
    /// Latents and text states that are computed once; none: they are computed at each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
    /// The images that evaluations make.
    #[serde(default)]
    pub sample: SampleConfig,
}

/// `[model]`: a pipeline `from` a checkpoint, or a new transformer with its text encoder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The pipeline to start from: a diffusers folder or a hub name. Its denoiser is trained, and its text
    /// encoders and autoencoder stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The new transformer, named as in diffusers' `SD3Transformer2DModel`. Widths that follow from the text
    /// encoder are set by it. With `in_channels = 3` it generates images; with 6 it reads an image as well,
    /// and also edits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transformer: Option<Sd3Config>,
    /// The folder or hub name of the autoencoder in whose latents the new transformer works; none: it works
    /// in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae: Option<String>,
    /// The new text encoder, trained with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<ClipTextConfig>,
}

/// `[objective]`: what the model predicts, and the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ObjectiveConfig {
    /// Flow matching: for transformers.
    Flow(FlowConfig),
    /// The noise schedule of the pipeline's scheduler: for U-Nets. What is predicted is the scheduler's
    /// `prediction_type`.
    Ddpm(DdpmConfig),
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self::Flow(FlowConfig::default())
    }
}

/// `[input]`: how samples become images with prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// The share of samples that are shown without their prompt, so that guidance has an unguided prediction.
    pub caption_dropout: f64,
    /// The share of edits that are shown without the image that is edited.
    pub image_dropout: f64,
    /// The share of samples that are shown with their canonical (first) caption; the others draw one of all.
    pub canonical_share: f64,
    /// Whether the masks of samples weight the loss: white counts. A sample without one counts whole.
    pub masked_loss: bool,
    /// The least weight, of what a mask leaves out.
    pub unmasked_weight: f64,
    /// Sizes for images of other aspects than a square; none: every image is cut to a square.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets: Option<BucketsConfig>,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self {
            caption_dropout: 0.1,
            image_dropout: 0.05,
            canonical_share: 0.0,
            masked_loss: false,
            unmasked_weight: 0.0,
            buckets: None,
        }
    }
}

/// `[sample]`: the images that evaluations make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleConfig {
    /// Prompts of each evaluation set that images are made for, the first ones; 0: none, and the loss alone
    /// is measured.
    pub prompts: usize,
    /// Steps of the scheduler.
    pub steps: usize,
    /// Guidance scales; an evaluation during training takes the first alone.
    pub guidance: Vec<f64>,
    /// The folder of a scene reader that judges images of scenes: see `run.task = "scene-reader"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { prompts: 16, steps: 20, guidance: vec![2.0], judge: None }
    }
}

impl ModelConfig {
    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let error = |key: &str, problem: &str| {
            Err(file.error(&format!("model.{key}"), format!("`model.{key}`: {problem}")))
        };
        let written = [
            ("transformer", self.transformer.is_some()),
            ("text", self.text.is_some()),
            ("vae", self.vae.is_some()),
        ];
        if self.from.is_some() {
            return match written.iter().find(|(_, is_written)| *is_written) {
                Some((key, _)) => error(key, "the pipeline that `model.from` names has it already"),
                None => Ok(()),
            };
        }
        let Some(transformer) = self.transformer_for_text() else {
            let missing = if self.transformer.is_none() { "transformer" } else { "text" };
            return error(missing, &format!("missing (`[model.{missing}]`, or `model.from` for a pipeline)"));
        };
        if let Err(problem) = transformer.validate() {
            return error("transformer", &problem.to_string());
        }
        let (reads, gives) = (transformer.in_channels, transformer.out_channels);
        if ![gives, 2 * gives].contains(&reads) || (self.vae.is_none() && gives != 3) {
            let problem = format!(
                "reads {reads} channels and gives {gives}: a model in pixels reads 3 or 6 and gives 3, one \
                 in latents gives their channels and reads these or twice as many"
            );
            return error("transformer", &problem);
        }
        match self.text.as_ref().map(ClipTextConfig::validate) {
            Some(Err(problem)) => error("text", &problem.to_string()),
            _ => Ok(()),
        }
    }

    /// The transformer with the widths that follow from the text encoder.
    pub(super) fn transformer_for_text(&self) -> Option<Sd3Config> {
        let (transformer, text) = (self.transformer.clone()?, self.text.as_ref()?);
        let width = transformer.width();
        Some(Sd3Config {
            caption_projection_dim: width,
            joint_attention_dim: text.hidden_size,
            pooled_projection_dim: text.output_width(),
            ..transformer
        })
    }
}

impl TaskConfig for DiffusionRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        self.model.validate(file)?;
        let is_new = self.model.from.is_none();
        let has_tokenizer = self.tokenizer.as_ref().is_some_and(TokenizerConfig::is_tokenizer);
        let needs = "a new text encoder needs `from` or `vocab_size`";
        file.check(!is_new || has_tokenizer, "tokenizer", needs)?;
        let has = "the pipeline that `model.from` names has a tokenizer already";
        file.check(is_new || self.tokenizer.is_none(), "tokenizer", has)?;
        let of_flow = matches!(self.objective, ObjectiveConfig::Flow(_));
        let new_is_flow = "a new transformer learns a flow: `kind = \"flow\"`";
        file.check(!is_new || of_flow, "objective.kind", new_is_flow)?;
        file.check(
            self.lora.is_none() || !is_new,
            "lora",
            "a new model has nothing to adapt: set `model.from`",
        )?;
        self.lora.as_ref().map_or(Ok(()), |lora| lora.validate(file))?;
        let InputConfig { caption_dropout, image_dropout, canonical_share, unmasked_weight, .. } = self.input;
        if let Some(inversion) = &self.textual_inversion {
            let needs = "a new token is for a pipeline: set `model.from`";
            file.check(!is_new, "textual_inversion", needs)?;
            let both = "trains nothing but the token: leave `[lora]` out";
            file.check(self.lora.is_none(), "textual_inversion", both)?;
            let changes = "the states of texts with a new token change: leave `[cache]` out";
            file.check(self.cache.is_none(), "textual_inversion", changes)?;
            let dropped = "a prompt without the token teaches nothing: set 0.0";
            file.check(caption_dropout == 0.0, "input.caption_dropout", dropped)?;
            inversion.validate(file)?;
        }
        for (key, share) in [
            ("input.caption_dropout", caption_dropout),
            ("input.image_dropout", image_dropout),
            ("input.canonical_share", canonical_share),
            ("input.unmasked_weight", unmasked_weight),
        ] {
            file.check((0.0..=1.0).contains(&share), key, format!("must be from 0 to 1, is {share}"))?;
        }
        let has_no_mask = "has no effect without `input.masked_loss = true`";
        file.check(self.input.masked_loss || unmasked_weight == 0.0, "input.unmasked_weight", has_no_mask)?;
        if let ObjectiveConfig::Flow(flow) = &self.objective {
            let std = flow.logit_std;
            file.check(std >= 0.0, "objective.logit_std", format!("must be at least 0, is {std}"))?;
            file.check(flow.shift > 0.0, "objective.shift", format!("must be above 0, is {}", flow.shift))?;
        }
        if let Some(cache) = &self.cache {
            file.check(cache.samples_per_shard > 0, "cache.samples_per_shard", "must be at least 1")?;
            let nothing = "needs a model with an autoencoder: `model.from`, or `model.vae`";
            file.check(!is_new || self.model.vae.is_some(), "cache", nothing)?;
        }
        let SampleConfig { steps, guidance, prompts, .. } = &self.sample;
        file.check(*steps > 0, "sample.steps", "must be at least 1")?;
        file.check(*prompts == 0 || !guidance.is_empty(), "sample.guidance", "names no scale")?;
        let is_scale = |scale: &f64| (0.0..=100.0).contains(scale);
        file.check(guidance.iter().all(is_scale), "sample.guidance", format!("{guidance:?}: from 0 to 100"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AutoencoderTask, DiffusionTask, SceneReaderTask};
    use mm_train::read_config;
    use std::path::Path;

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/diffusion");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mut file = ConfigFile::read(&path, &[]).unwrap();
            let read = match file.get("run.task").and_then(|task| task.as_str().map(str::to_owned)).as_deref()
            {
                Some("autoencoder") => read_config::<AutoencoderTask>(&mut file).map(drop),
                Some("scene-reader") => read_config::<SceneReaderTask>(&mut file).map(drop),
                _ => read_config::<DiffusionTask>(&mut file).map(drop),
            };
            read.unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
        assert!(count >= 2);
    }
}
