//! `scheduler_config.json`.

use super::betas::NoiseSchedule;
use super::settings::{Settings, effective};
use super::{PredictionType, Scheduler, SchedulerKind};
use super::{ddim, ddpm, dpm_multistep, euler, euler_ancestral, flow_match, heun, lcm, lms, pndm, unipc};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// More steps than any use has, so that a mistyped number does not fill the memory.
const MAX_STEPS: usize = 100_000;

/// A scheduler's class and settings, as `scheduler_config.json` has them.
///
/// Only the keys of the file are kept, not the class's defaults: another class that reads the same file
/// ([`with_kind`](Self::with_kind)) fills in its own. Unknown keys are kept.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    kind: SchedulerKind,
    values: Map<String, Value>,
    settings: Settings,
}

/// What a run chooses beside the number of steps. A class ignores what it has no use for.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// DDIM: the share of the variance of DDPM, from 0 (no noise) to 1.
    pub eta: f64,
    /// The shift of `use_dynamic_shifting`, from [`SchedulerConfig::dynamic_shift`].
    pub mu: Option<f64>,
    /// LCM: the steps of the distilled solver, in place of the setting `original_inference_steps`.
    pub original_inference_steps: Option<usize>,
    /// LCM: the part of the schedule that LCM's own image-to-image pipeline spreads all of its steps over. 1
    /// for other pipelines, which skip calls instead.
    pub strength: f64,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { eta: 0.0, mu: None, original_inference_steps: None, strength: 1.0 }
    }
}

impl SchedulerConfig {
    /// The settings of a parsed `scheduler_config.json`. `_class_name` says the class.
    pub fn new(value: Value) -> Result<Self> {
        let name = value.get("_class_name").and_then(Value::as_str).ok_or_else(|| {
            Error::Scheduler("_class_name is missing: it names the scheduler's class".to_owned())
        })?;
        let kind = SchedulerKind::from_class_name(name)?;
        Self::new_as(value, kind)
    }

    /// [`new`](Self::new) read by `kind`, whatever class the file names, also one that is not known here.
    pub fn new_as(value: Value, kind: SchedulerKind) -> Result<Self> {
        let Value::Object(mut values) = value else {
            return Err(Error::Scheduler("the config is not a JSON object".to_owned()));
        };
        // Null here where diffusers wrote minus infinity. Writing null would break diffusers; without the key
        // it takes its default, minus infinity.
        if values.get("lambda_min_clipped").is_some_and(Value::is_null) {
            values.remove("lambda_min_clipped");
        }
        values.insert("_class_name".to_owned(), json!(kind.class_name()));
        let settings = Settings::read(kind, &values)?;
        Ok(Self { kind, values, settings })
    }

    /// The settings of the text of a `scheduler_config.json`. Unlike JSON, it may hold `Infinity` and `NaN`.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::new(parse(text)?)
    }

    /// The settings of the file `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::folder(path, error.to_string()))?;
        Self::from_json(&text).map_err(|error| match error {
            Error::Scheduler(problem) => Error::folder(path, problem),
            other => other,
        })
    }

    /// The file's content: the keys that were read or [`set`](Self::set), and no defaults.
    pub fn to_json(&self) -> Value {
        Value::Object(self.values.clone())
    }

    /// The same keys read by another class, with that class's defaults (`from_config` of diffusers).
    ///
    /// A flow-matching model can be sampled with DPM-Solver++ and UniPC too, which then get
    /// `use_flow_sigmas`, the prediction type and the shift; no other class fits such a model.
    pub fn with_kind(&self, kind: SchedulerKind) -> Result<Self> {
        let mut values = self.values.clone();
        let was_flow = self.kind == SchedulerKind::FlowMatchEuler;
        match kind {
            _ if kind == self.kind => {}
            SchedulerKind::DpmMultistep | SchedulerKind::UniPc if was_flow => {
                values.insert("use_flow_sigmas".to_owned(), json!(true));
                values.insert("prediction_type".to_owned(), json!("flow_prediction"));
                values.insert("flow_shift".to_owned(), json!(self.settings.shift));
            }
            SchedulerKind::FlowMatchEuler => {
                return Err(Error::Scheduler(format!(
                    "{kind} needs a model that predicts a flow, and this model was made for {}",
                    self.kind
                )));
            }
            _ if was_flow => {
                return Err(Error::Scheduler(format!(
                    "{kind} cannot sample a model that predicts a flow: use {}, {} or {}",
                    SchedulerKind::FlowMatchEuler.word(),
                    SchedulerKind::DpmMultistep.word(),
                    SchedulerKind::UniPc.word()
                )));
            }
            _ => {}
        }
        Self::new_as(Value::Object(values), kind)
    }

    /// Sets one key, e.g. `steps_offset`, which diffusers' pipelines override. On an error nothing is
    /// changed.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        let mut values = self.values.clone();
        values.insert(key.to_owned(), value.into());
        *self = Self::new_as(Value::Object(values), self.kind)?;
        Ok(())
    }

    /// The class.
    pub fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// What the model predicts.
    pub fn prediction_type(&self) -> PredictionType {
        match self.kind {
            SchedulerKind::FlowMatchEuler => PredictionType::FlowPrediction,
            _ => self.settings.prediction_type,
        }
    }

    /// The number of training timesteps.
    pub fn num_train_timesteps(&self) -> usize {
        self.settings.num_train_timesteps
    }

    /// All settings that the class uses, defaults included, and its `_class_name`: to print, and to store
    /// with an image.
    pub fn effective(&self) -> Value {
        let mut settings = effective(self.kind, &self.values);
        settings.insert("_class_name".to_owned(), json!(self.kind.class_name()));
        Value::Object(settings)
    }

    /// The noise schedule that the model is trained with. An error for flow matching, which has none.
    pub fn noise_schedule(&self) -> Result<NoiseSchedule> {
        if self.kind == SchedulerKind::FlowMatchEuler {
            return Err(Error::Scheduler(format!(
                "{} has no betas: a flow is trained over sigma",
                self.kind
            )));
        }
        NoiseSchedule::new(self.kind, &self.settings)
    }

    /// `mu` for an image of `image_seq_len` tokens, between `base_shift` and `max_shift`, where the settings
    /// ask for a shift that grows with the image (`use_dynamic_shifting`).
    pub fn dynamic_shift(&self, image_seq_len: usize) -> Option<f64> {
        if !self.settings.use_dynamic_shifting {
            return None;
        }
        // DPM-Solver++ and UniPC shift in the same way, but these keys are the flow scheduler's alone.
        let settings = Settings::read(SchedulerKind::FlowMatchEuler, &self.values).ok()?;
        let slope = (settings.max_shift - settings.base_shift)
            / (settings.max_image_seq_len - settings.base_image_seq_len);
        Some(settings.base_shift + slope * (image_seq_len as f64 - settings.base_image_seq_len))
    }

    /// The scheduler for a run of `steps` steps.
    pub fn build(&self, steps: usize, options: &SchedulerOptions) -> Result<Box<dyn Scheduler>> {
        if !(1..=MAX_STEPS).contains(&steps) {
            return Err(Error::Scheduler(format!("{steps} steps: use 1 to {MAX_STEPS}")));
        }
        let settings = self.settings.clone();
        Ok(match self.kind {
            SchedulerKind::Ddpm => Box::new(ddpm::Ddpm::new(settings, steps)?),
            SchedulerKind::Ddim => Box::new(ddim::Ddim::new(settings, steps, options.eta)?),
            SchedulerKind::Pndm => Box::new(pndm::Pndm::new(settings, steps)?),
            SchedulerKind::Lms => Box::new(lms::Lms::new(settings, steps)?),
            SchedulerKind::Euler => Box::new(euler::Euler::new(settings, steps)?),
            SchedulerKind::EulerAncestral => Box::new(euler_ancestral::EulerAncestral::new(settings, steps)?),
            SchedulerKind::Heun => Box::new(heun::Heun::new(settings, steps)?),
            SchedulerKind::DpmMultistep => {
                Box::new(dpm_multistep::DpmMultistep::new(settings, steps, options.mu)?)
            }
            SchedulerKind::UniPc => Box::new(unipc::UniPc::new(settings, steps, options.mu)?),
            SchedulerKind::Lcm => Box::new(lcm::Lcm::new(settings, steps, options)?),
            SchedulerKind::FlowMatchEuler => {
                Box::new(flow_match::FlowMatchEuler::new(settings, steps, options.mu)?)
            }
        })
    }
}

/// JSON as Python writes it: `Infinity`, `-Infinity` and `NaN` become null.
fn parse(text: &str) -> Result<Value> {
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(first) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| rest.starts_with(word));
        if let (false, Some(word)) = (in_string, word) {
            json.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        // An escaped character, e.g. a quote, is copied with its backslash.
        let length = match rest.chars().nth(1) {
            Some(second) if in_string && first == '\\' => 1 + second.len_utf8(),
            _ => first.len_utf8(),
        };
        in_string ^= first == '"';
        json.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    serde_json::from_str(&json).map_err(|error| Error::Scheduler(error.to_string()))
}
