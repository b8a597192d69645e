//! The `[lora]` table of a config.

use super::targets;
use crate::config::{ConfigError, ConfigFile};
use serde::{Deserialize, Serialize};

/// LoRA's settings, with PEFT's defaults. PEFT's names of the keys are aliases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the update of each weight.
    #[serde(alias = "r")]
    pub rank: i64,
    /// The update is scaled by alpha / rank.
    #[serde(alias = "lora_alpha")]
    pub alpha: f64,
    /// Probability that an input of an adapter is dropped in training.
    #[serde(alias = "lora_dropout")]
    pub dropout: f64,
    /// Whether the scaling is alpha / sqrt(rank) instead (Kalajdzievski 2023, "A rank stabilization scaling
    /// factor for fine-tuning with LoRA").
    #[serde(alias = "use_rslora")]
    pub rslora: bool,
    /// The linear layers that get an adapter, by their names in the Hugging Face checkpoint. As in PEFT, a
    /// target matches a layer of this name and every layer whose name ends with `.TARGET` ("q_proj",
    /// "mlp.fc1"), and "all-linear" matches all. A target with `*`, which stands for any characters, is
    /// matched against the whole name ("vision_model.*.q_proj").
    #[serde(alias = "target_modules")]
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 8, alpha: 8.0, dropout: 0.0, rslora: false, targets: Vec::new() }
    }
}

impl LoraConfig {
    /// Checks the values of the table `[lora]` of `file`.
    ///
    /// # Errors
    /// The first value that is out of range, with its line.
    pub fn validate(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        self.check_values().map_err(|(key, problem)| {
            let key = format!("lora.{key}");
            file.error(&key, format!("`{key}` {problem}"))
        })
    }

    /// [`LoraConfig::validate`], and checks what `[lora]` needs of `[model]`: `base`, the checkpoint of
    /// `model.from`, with layers that the targets match, and no part that `[model]` freezes. `freezing` holds
    /// the keys of `[model]` for that, and whether they are set. `layers` opens `base` and gives the names of
    /// its linear layers, as [`linear_names`](super::linear_names) does; its error is the task's to report.
    ///
    /// # Errors
    /// The first problem, with its line.
    pub fn validate_with_base<E>(
        &self,
        file: &ConfigFile,
        base: Option<&str>,
        freezing: &[(&str, bool)],
        layers: impl FnOnce(&str) -> Result<Vec<String>, E>,
    ) -> Result<(), ConfigError> {
        self.validate(file)?;
        let Some(base) = base else {
            let problem = "`lora` trains adapters of a pretrained model: set `model.from`";
            return Err(file.error("lora", problem));
        };
        if let Some((key, _)) = freezing.iter().find(|(_, is_set)| *is_set) {
            let problem = format!("`model.{key}`: `[lora]` freezes the whole model already; remove one");
            return Err(file.error(&format!("model.{key}"), problem));
        }
        layers(base).map_or(Ok(()), |layers| self.validate_targets(file, &layers))
    }

    /// Checks that each target of `[lora]` of `file` matches a layer of the model, given by
    /// [`Linears::names`](super::Linears::names).
    ///
    /// # Errors
    /// A target that matches none, with its line and the nearest names.
    pub fn validate_targets(&self, file: &ConfigFile, layers: &[String]) -> Result<(), ConfigError> {
        targets::check(&self.targets, layers)
            .map_err(|problem| file.error("lora.targets", format!("`lora.targets`: {problem}")))
    }

    /// The first key with a value out of range, and what is wrong with it.
    pub(super) fn check_values(&self) -> Result<(), (&'static str, String)> {
        if self.rank < 1 {
            return Err(("rank", format!("must be at least 1, is {}", self.rank)));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(("alpha", format!("must be above 0, is {}", self.alpha)));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(("dropout", format!("must be from 0 to below 1, is {}", self.dropout)));
        }
        if self.targets.is_empty() {
            return Err(("targets", "must name linear layers, as in [\"q_proj\", \"v_proj\"]".to_owned()));
        }
        Ok(())
    }

    /// The factor of the update.
    pub(super) fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}
