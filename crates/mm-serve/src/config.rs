//! The models file: which models are served, and the limits of requests.

use crate::Result;
use crate::limits::{Limits, check_count};
use mm_core::config::{ConfigError, ConfigFile};
use mm_core::{DeviceConfig, OpenOptions, Precision};
use mm_rlhf::RewardConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The models file.
///
/// ```
/// let toml = "[models.clip]\ntask = 'clip'\nfrom = 'openai/clip-vit-base-patch32'\nbatch_size = 64";
/// let config: mm_serve::ServeConfig = toml::from_str(toml)?;
/// assert_eq!((config.models["clip"].batch_size, config.models["clip"].queue), (64, 256));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// The models by the name that requests have in `model`.
    pub models: BTreeMap<String, ModelConfig>,
    /// The indexes by the name that searches have in `index`.
    #[serde(default)]
    pub indexes: BTreeMap<String, IndexConfig>,
    /// The limits of requests and connections.
    #[serde(default)]
    pub limits: Limits,
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Embeddings, classification and heat maps by a CLIP.
    Clip,
    /// Captions of images.
    Caption,
    /// Answers to questions about images.
    Vqa,
    /// Images from texts, and edits of images.
    Diffusion,
    /// Scores of images.
    Reward,
}

impl Task {
    /// The name, as in the models file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::Caption => "caption",
            Self::Vqa => "vqa",
            Self::Diffusion => "diffusion",
            Self::Reward => "reward",
        }
    }
}

/// A model, how it is opened, and how its requests are batched.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// What the model does.
    pub task: Task,
    /// Its folder or hub name; none for a reward without a model.
    pub from: Option<String>,
    /// The device: `"auto"`, `"cpu"` or `"cuda:N"`.
    #[serde(default)]
    pub device: DeviceConfig,
    /// The precision; rewards compute in f32.
    #[serde(default)]
    pub precision: Precision,
    /// The number of texts and images that a batch is closed at.
    #[serde(default = "defaults::batch_size")]
    pub batch_size: usize,
    /// Milliseconds that the first request of a batch waits for others.
    #[serde(default = "defaults::wait_ms")]
    pub wait_ms: u64,
    /// The number of requests that may wait; more get status 429.
    #[serde(default = "defaults::queue")]
    pub queue: usize,
    /// The kind of a reward, one of [`RewardConfig::KINDS`].
    pub kind: Option<String>,
    /// The safetensors file of the MLP of a reward of kind `aesthetic`.
    pub head: Option<PathBuf>,
}

/// An index that is searched.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexConfig {
    /// The folder of the index.
    pub path: PathBuf,
    /// The name of the CLIP in `[models]` that embeds queries.
    pub model: String,
}

mod defaults {
    pub fn batch_size() -> usize {
        32
    }

    pub fn wait_ms() -> u64 {
        2
    }

    pub fn queue() -> usize {
        256
    }
}

impl ServeConfig {
    /// Reads the models file.
    ///
    /// # Errors
    /// It cannot be read, or a key is unknown, missing or out of its range: names the file and the line.
    pub fn read(file: &Path) -> Result<Self> {
        let toml = ConfigFile::read(file, &[])?;
        let config: Self = toml.parse()?;
        config.validate(&toml)?;
        Ok(config)
    }

    fn validate(&self, toml: &ConfigFile) -> Result<(), ConfigError> {
        toml.check(!self.models.is_empty(), "models", "there is no model: add a [models.NAME] table")?;
        for (name, model) in &self.models {
            let key = format!("models.{name}");
            toml.check(is_name(name), &key, NAME_RULE)?;
            model.validate(&key, toml)?;
        }
        for (name, index) in &self.indexes {
            let key = format!("indexes.{name}");
            toml.check(is_name(name), &key, NAME_RULE)?;
            let is_clip = self.models.get(&index.model).is_some_and(|model| model.task == Task::Clip);
            let problem = format!("there is no [models.{}] with task = \"clip\"", index.model);
            toml.check(is_clip, &format!("{key}.model"), problem)?;
        }
        self.limits.validate(toml)
    }
}

const NAME_RULE: &str = "a name has 1 to 64 letters, digits, `-`, `_`, `.`, `/` or `:`";

fn is_name(name: &str) -> bool {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(is_valid)
}

impl ModelConfig {
    fn validate(&self, key: &str, toml: &ConfigFile) -> Result<(), ConfigError> {
        check_count(toml, &format!("{key}.batch_size"), self.batch_size)?;
        check_count(toml, &format!("{key}.queue"), self.queue)?;
        let is_short = self.wait_ms <= 60_000;
        toml.check(is_short, &format!("{key}.wait_ms"), "it must be at most 60000")?;
        if self.task != Task::Reward {
            toml.check(self.from.is_some(), key, "`from` is missing: a folder or a hub name")?;
            toml.check(self.kind.is_none(), &format!("{key}.kind"), "only a reward has a kind")?;
            return toml.check(self.head.is_none(), &format!("{key}.head"), "only a reward has a head");
        }
        let is_f32 = self.precision == Precision::F32;
        toml.check(is_f32, &format!("{key}.precision"), "rewards compute in f32")?;
        self.reward().map(drop).map_err(|problem| toml.error(key, format!("`{key}`: {problem}")))
    }

    /// Device and precision.
    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions { device: self.device.clone(), precision: self.precision, resolution: None }
    }

    /// The folder or hub name.
    pub(crate) fn source(&self) -> &str {
        self.from.as_deref().unwrap_or_default()
    }

    /// The reward of `kind`, `from` and `head`, as `mm reward` has them.
    pub(crate) fn reward(&self) -> Result<RewardConfig, String> {
        let mut fields = toml::Table::new();
        fields.insert("kind".to_owned(), self.kind.as_deref().unwrap_or("clip").into());
        if let Some(from) = &self.from {
            fields.insert("model".to_owned(), from.as_str().into());
        }
        if let Some(head) = &self.head {
            fields.insert("head".to_owned(), head.to_str().ok_or("`head` is not UTF-8")?.into());
        }
        fields.try_into().map_err(|error: toml::de::Error| error.message().replace("`model`", "`from`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[models.a]\ntask = \"clip\"\nfrom = \"DIR\"\n\n[limits]\nbody_mb = 1\n";

    fn read(text: &str) -> Result<ServeConfig, String> {
        let toml = ConfigFile::from_text("m.toml", text, &[]).map_err(|error| error.to_string())?;
        let config: ServeConfig = toml.parse().map_err(|error| error.to_string())?;
        config.validate(&toml).map(|()| config).map_err(|error| error.to_string())
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        read(&GOOD.replace(from, to)).unwrap_err()
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.limits, Limits { body_mb: 1, ..Limits::default() });
        let model = &config.models["a"];
        assert_eq!((model.batch_size, model.wait_ms, model.queue), (32, 2, 256));
        assert_eq!((model.device.clone(), model.precision), (DeviceConfig::default(), Precision::F32));
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_its_line() {
        assert_eq!(refused("from", "form"), "m.toml:3: unknown key `models.a.form`; did you mean `from`?");
        assert!(refused("body_mb", "bodymb").starts_with("m.toml:6: unknown key `limits.bodymb`"));
        assert!(refused("\"clip\"", "\"clap\"").starts_with("m.toml:2: "));
        assert!(refused("from = \"DIR\"", "").contains("`from` is missing"));
        assert!(refused("from", "queue = 0\nfrom").contains("`models.a.queue`: 0: it must be from 1"));
        assert!(refused("from", "kind = \"clip\"\nfrom").contains("only a reward has a kind"));
        assert!(refused("models.a", "models.\"a b\"").contains("a name has 1 to 64 letters"));
        assert!(refused("body_mb = 1", "memory_mb = 9").contains("a request with a body and one image"));
        assert!(read("[models]\n").unwrap_err().contains("there is no model"));
    }

    #[test]
    fn a_reward_has_the_fields_of_its_kind() {
        let reward = |fields: &str| read(&format!("[models.r]\ntask = \"reward\"\n{fields}"));
        assert!(reward("from = 'DIR'").is_ok() && reward("kind = 'jpeg_compressibility'").is_ok());
        assert!(reward("kind = 'aesthetic'\nfrom = 'DIR'").unwrap_err().contains("missing field `head`"));
        assert!(reward("").unwrap_err().contains("missing field `from`"));
        assert!(reward("from = 'DIR'\nprecision = 'bf16'").unwrap_err().contains("rewards compute in f32"));
    }

    #[test]
    fn an_index_names_a_clip() {
        let with = |model: &str| read(&format!("{GOOD}[indexes.i]\npath = 'i'\nmodel = '{model}'\n"));
        assert!(with("a").is_ok());
        assert!(with("b").unwrap_err().contains("there is no [models.b] with task = \"clip\""));
    }
}
