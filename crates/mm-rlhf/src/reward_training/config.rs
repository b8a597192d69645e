//! The configuration of a run with `run.task = "reward"`.

use super::Objective;
use mm_clip::{Clip, ModelFolder};
use mm_core::checkpoint::hf_names;
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::lora::{LoraConfig, linear_names};
use mm_train::{DataConfig, EvalConfig, RunConfig, Shared, TaskConfig, TrainConfig};
use serde::{Deserialize, Serialize};

/// The largest hidden width of an MLP.
const MAX_WIDTH: i64 = 65_536;

/// The largest number of members of an ensemble.
const MAX_MEMBERS: usize = 64;

/// A run with `run.task = "reward"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRunConfig {
    /// Name, seed, folder and device.
    pub run: RunConfig,
    /// The model.
    pub model: RewardModelConfig,
    /// Low-rank adapters of a CLIP, which are then all that is trained; none: the weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// The judgements that the reward is trained on.
    pub objective: ObjectiveConfig,
    /// The data sets and how they are loaded.
    pub data: DataConfig,
    /// Steps, batches, optimizer.
    pub train: TrainConfig,
    /// When the evaluation sets are measured.
    #[serde(default)]
    pub eval: EvalConfig,
}

/// `[objective]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// The kind of judgements.
    pub kind: Objective,
}

/// `[model]`: the reward, and what of it trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RewardModelConfig {
    /// exp(logit_scale) times the cosine of image and prompt by a CLIP: the rewards `pick_score` and `clip`.
    Clip(ClipModelConfig),
    /// An MLP on the unit embedding of an image by a frozen CLIP: the reward `aesthetic`.
    Aesthetic(AestheticModelConfig),
}

/// A CLIP that is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipModelConfig {
    /// The folder or hub name of the CLIP to start from.
    pub from: String,
    /// What trains, without `[lora]`.
    #[serde(default)]
    pub trains: Trains,
}

/// What of a CLIP trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trains {
    /// All of it.
    #[default]
    All,
    /// The projections to the shared space and the temperature.
    Head,
}

/// An MLP, or several, on a frozen CLIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AestheticModelConfig {
    /// The folder or hub name of the CLIP.
    pub from: String,
    /// The hidden widths: one, with a ReLU behind it, or the four of LAION's predictor v2, without
    /// activations (1024, 128, 64, 16).
    #[serde(default = "one_hidden_layer")]
    pub hidden: Vec<i64>,
    /// MLPs that are trained, each with its own initial values and, if there are several, its own bootstrap
    /// sample. The reward is their mean.
    #[serde(default = "one_member")]
    pub ensemble: usize,
}

fn one_hidden_layer() -> Vec<i64> {
    vec![256]
}

fn one_member() -> usize {
    1
}

impl RewardModelConfig {
    /// The folder or hub name of the CLIP.
    pub fn from(&self) -> &str {
        match self {
            Self::Clip(config) => &config.from,
            Self::Aesthetic(config) => &config.from,
        }
    }
}

impl TaskConfig for RewardRunConfig {
    fn shared(&self) -> Shared<'_> {
        Shared { run: &self.run, data: &self.data, train: &self.train, eval: &self.eval }
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        match (&self.model, &self.lora) {
            (RewardModelConfig::Clip(model), Some(lora)) => {
                let layers = |base: &str| -> mm_clip::Result<Vec<String>> {
                    let folder = ModelFolder::open(base)?;
                    let config = folder.clip()?;
                    linear_names(hf_names, |path| Clip::new(path, config))
                };
                let freezing = [("trains", model.trains == Trains::Head)];
                lora.validate_with_base(file, Some(&model.from), &freezing, layers)
            }
            (RewardModelConfig::Clip(_), None) => Ok(()),
            (RewardModelConfig::Aesthetic(_), Some(_)) => {
                let problem =
                    "`lora`: is for `model.kind = \"clip\"`; of an aesthetic model the MLP alone trains";
                Err(file.error("lora", problem))
            }
            (RewardModelConfig::Aesthetic(model), None) => {
                let AestheticModelConfig { hidden, ensemble, .. } = model;
                let are_valid = [1, 4].contains(&hidden.len())
                    && hidden.iter().all(|width| (1..=MAX_WIDTH).contains(width));
                let problem = format!(
                    "must be one width (with a ReLU) or four (LAION's form), from 1 to {MAX_WIDTH}, is \
                     {hidden:?}"
                );
                file.check(are_valid, "model.hidden", problem)?;
                let problem = format!("must be from 1 to {MAX_MEMBERS}, is {ensemble}");
                file.check((1..=MAX_MEMBERS).contains(ensemble), "model.ensemble", problem)?;
                file.check(
                    !self.train.gradient_checkpointing,
                    "train.gradient_checkpointing",
                    "is for `model.kind = \"clip\"`; a frozen CLIP keeps nothing for the backward pass",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RewardTask;
    use mm_train::read_config;
    use std::path::Path;

    const CONFIG: &str = "[run]\ntask = 'reward'\nname = 'a'\n[model]\nkind = 'KIND'\nfrom = './nowhere'\n\
                          MODEL\n[objective]\nkind = 'preferences'\n[data]\ntrain = { kind = 'shapes' }\n\
                          [train]\nsteps = 1\nbatch_size = 2\nlr = 1e-3\nTRAIN";

    fn read(kind: &str, model: &str, train: &str) -> Result<RewardRunConfig, String> {
        let text = CONFIG.replace("KIND", kind).replace("MODEL", model).replace("TRAIN", train);
        let mut file = ConfigFile::from_text("c.toml", &text, &[]).unwrap();
        read_config::<RewardTask>(&mut file).map_err(|error| error.to_string())
    }

    #[test]
    fn every_configuration_of_the_workspace_is_valid() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/rlhf/shapes-reward.toml");
        read_config::<RewardTask>(&mut ConfigFile::read(&file, &[]).unwrap())
            .unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn kinds_have_their_own_keys_and_defaults() {
        let RewardModelConfig::Clip(clip) = read("clip", "", "").unwrap().model else { panic!() };
        assert_eq!((clip.trains, &clip.from[..]), (Trains::All, "./nowhere"));
        let RewardModelConfig::Aesthetic(model) = read("aesthetic", "", "").unwrap().model else { panic!() };
        assert_eq!((model.hidden, model.ensemble), (vec![256], 1));
        assert!(read("clip", "ensemble = 3", "").unwrap_err().contains("unknown key `model.ensemble`"));
        assert!(read("aesthetic", "trains = 'head'", "").unwrap_err().contains("unknown key `model.trains`"));
        assert!(read("blip", "", "").unwrap_err().contains("unknown variant `blip`"));
    }

    #[test]
    fn values_that_do_not_go_together_are_refused_with_their_line() {
        let lora = "[lora]\ntargets = ['q_proj']";
        for (kind, model, train, expected) in [
            ("aesthetic", "hidden = [4, 4]", "", "c.toml:7: `model.hidden`: must be one width"),
            ("aesthetic", "hidden = [0]", "", "c.toml:7: `model.hidden`"),
            ("aesthetic", "ensemble = 0", "", "c.toml:7: `model.ensemble`: must be from 1 to 64, is 0"),
            ("aesthetic", "", lora, "`lora`: is for `model.kind = \"clip\"`"),
            ("aesthetic", "", "gradient_checkpointing = true", "`train.gradient_checkpointing`: is for"),
            ("clip", "trains = 'head'", lora, "`model.trains`: `[lora]` freezes the whole model already"),
        ] {
            let error = read(kind, model, train).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
