//! The files of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use super::{Linears, Lora, LoraConfig, targets};
use crate::checkpoint::{NameMap, TensorLayout, Weights, write};
use crate::{Error, Result, read_json, write_json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::nn::VarStore;

/// PEFT's config of an adapter.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

/// PEFT's tensors of an adapter.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The folder of the adapters in that of the merged model.
const ADAPTER_FOLDER: &str = "adapter";

/// The part of PEFT's tensor names before the name of the layer.
const PREFIX: &str = "base_model.model.";

/// The keys of `adapter_config.json` that bear on the numbers.
#[derive(Deserialize)]
struct AdapterConfig {
    peft_type: String,
    r: i64,
    #[serde(default = "default_alpha")]
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, Value>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, Value>,
}

fn default_alpha() -> f64 {
    LoraConfig::default().alpha
}

impl AdapterConfig {
    /// The first setting that is not supported.
    fn unsupported(&self) -> Option<String> {
        let bias = self.bias.as_deref().unwrap_or("none");
        [
            (self.peft_type != "LORA", format!("peft_type {:?}", self.peft_type)),
            (self.use_dora, "use_dora".to_owned()),
            (self.fan_in_fan_out, "fan_in_fan_out".to_owned()),
            (bias != "none", format!("bias {bias:?}")),
            (
                self.modules_to_save.as_ref().is_some_and(|names| !names.is_empty()),
                "modules_to_save".to_owned(),
            ),
            (!self.rank_pattern.is_empty(), "rank_pattern".to_owned()),
            (!self.alpha_pattern.is_empty(), "alpha_pattern".to_owned()),
        ]
        .into_iter()
        .find_map(|(is_set, setting)| is_set.then_some(setting))
    }
}

impl Lora {
    /// Attaches the adapters in the PEFT folder `folder`; otherwise as [`Lora::attach`].
    ///
    /// # Errors
    /// A file is missing or damaged, the adapters are not plain LoRA, or they do not fit the model.
    pub fn open(folder: &Path, linears: &Linears, names: NameMap, vs: &VarStore) -> Result<Self> {
        let file = folder.join(ADAPTER_CONFIG_FILE);
        let config: AdapterConfig = read_json(&file)?;
        if let Some(setting) = config.unsupported() {
            let problem = format!("{setting} is not supported: only plain LoRA of linear layers is");
            return Err(Error::File { path: file, problem });
        }
        let mut weights = Weights::open(&folder.join(ADAPTER_WEIGHTS_FILE))?;
        weights.rename(|name| name.strip_prefix(PREFIX).unwrap_or(name).to_owned());
        // The tensors give the layers: target_modules may be a regular expression.
        let layers = |name: &str| name.split_once(".lora_").map(|(layer, _)| layer.to_owned());
        let layers: BTreeSet<String> =
            weights.list().iter().filter_map(|tensor| layers(&tensor.name)).collect();
        let config = LoraConfig {
            rank: config.r,
            alpha: config.lora_alpha,
            dropout: config.lora_dropout,
            rslora: config.use_rslora,
            targets: layers.iter().cloned().collect(),
        };
        config
            .check_values()
            .map_err(|(key, problem)| Error::File { path: file, problem: format!("{key} {problem}") })?;
        let modules = linears.modules(names);
        targets::check_exact(&layers, &modules)
            .map_err(|problem| Error::checkpoint(weights.path(), problem))?;
        let chosen = modules.into_iter().filter(|module| layers.contains(&module.name)).collect();
        let lora = Self::attach_to(&config, chosen, vs)?;
        weights.fill(lora.variables.variables().into_iter().collect(), &TensorLayout::AS_IS)?;
        Ok(lora)
    }

    /// Writes the adapters as [`Lora::save`] does into the folder `adapter` of the existing `folder`, that of
    /// the merged model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_beside_merged(&self, folder: &Path, base_model: Option<&str>) -> Result<()> {
        let adapter = folder.join(ADAPTER_FOLDER);
        std::fs::create_dir_all(&adapter).map_err(|source| Error::io("write", &adapter, source))?;
        self.save(&adapter, base_model)
    }

    /// Writes the adapters to the existing `folder` as PEFT does; `base_model` is the folder or hub name of
    /// the model that they belong to.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, folder: &Path, base_model: Option<&str>) -> Result<()> {
        self.save_config(folder, base_model)?;
        let mut tensors: Vec<_> = self
            .variables
            .variables()
            .into_iter()
            .map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor))
            .collect();
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        write(&folder.join(ADAPTER_WEIGHTS_FILE), &tensors)
    }

    /// Writes `adapter_config.json` alone, as [`Lora::save`] does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_config(&self, folder: &Path, base_model: Option<&str>) -> Result<()> {
        let LoraConfig { rank, alpha, dropout, rslora, targets: given } = &self.config;
        let modules: Vec<&str> = self.modules().collect();
        let targets: Vec<&str> = if given.iter().any(|target| targets::is_own(target)) {
            modules
        } else {
            given.iter().map(String::as_str).collect()
        };
        // PEFT declares alpha as an integer.
        let alpha = if alpha.fract() == 0.0 { json!(*alpha as i64) } else { json!(alpha) };
        let config = json!({
            "peft_type": "LORA",
            "task_type": null,
            "base_model_name_or_path": base_model,
            "inference_mode": true,
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": dropout,
            "use_rslora": rslora,
            "use_dora": false,
            "fan_in_fan_out": false,
            "bias": "none",
            "init_lora_weights": true,
            "modules_to_save": null,
            "rank_pattern": {},
            "alpha_pattern": {},
            "target_modules": targets,
        });
        write_json(&folder.join(ADAPTER_CONFIG_FILE), &config)
    }
}
