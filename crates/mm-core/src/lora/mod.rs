//! LoRA: low-rank adapters on the linear layers of a frozen model (Hu et al. 2021, "LoRA: low-rank adaptation
//! of large language models").
//!
//! A linear layer `y = x W^T + b` gets `A` `[rank, in]` and `B` `[out, rank]` and computes
//! `y + scaling * dropout(x) A^T B^T`, with scaling alpha / rank. Only A and B are trained. `B` starts at
//! zero, so that training starts from the model itself.
//!
//! Layers are named as in the Hugging Face checkpoint. Where this project keeps the query, key and value
//! projections as one `in_proj`, an adapter of `q_proj` acts on its rows of the joined output. Files are
//! those of PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! ```
//! use mm_core::checkpoint::hf_names;
//! use mm_core::lora::{Lora, LoraConfig, record_linears};
//! use mm_core::nn::{AttentionMask, BlockConfig, BlockNames, Transformer};
//! use tch::{nn, Device, Kind, Tensor};
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let config = BlockConfig { width: 32, heads: 4, mlp_width: 128, layers: 2, ..BlockConfig::default() };
//! // 1. Build (and fill) the model, recording its linear layers.
//! let (model, linears) =
//!     record_linears(|| Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP));
//! // 2. Attach adapters, which freezes the variables of `vs`.
//! let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
//! let config = LoraConfig { rank: 4, targets, ..LoraConfig::default() };
//! let lora = Lora::attach(&config, &linears, hf_names, &vs)?;
//! // 3. Train the variables of the adapters.
//! assert_eq!(lora.variables().len(), 2 * 2 * 2);
//! let x = Tensor::randn([2, 7, 32], (Kind::Float, Device::Cpu));
//! model.forward(x, &AttentionMask::none()).sum(Kind::Float).backward();
//! assert!(lora.variables().variables()["layers.0.self_attn.q_proj.lora_B.weight"].grad().defined());
//! # Ok::<(), mm_core::Error>(())
//! ```

mod adapter;
mod config;
mod linears;
mod peft;
mod targets;
#[cfg(test)]
mod tests;

pub(crate) use adapter::AdapterSlot;
pub use config::LoraConfig;
pub(crate) use linears::record;
pub use linears::{Linears, linear_names, record_linears};
pub use peft::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};

use crate::checkpoint::NameMap;
use crate::nn::parameter;
use crate::{Error, Result};
use adapter::{Adapter, Switches};
use linears::Module;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tch::Tensor;
use tch::nn::{Init, Path, VarStore};

/// The adapters of a model.
#[derive(Debug)]
pub struct Lora {
    config: LoraConfig,
    variables: VarStore,
    adapted: Vec<Adapted>,
    switches: Arc<Switches>,
}

/// A linear layer, or a part of the rows of one, with its adapter.
#[derive(Debug)]
struct Adapted {
    module: Module,
    adapter: Adapter,
}

impl Lora {
    /// Attaches new adapters to the layers of `linears` that the targets of `config` match, and freezes every
    /// variable of `vs`. A is Kaiming-uniform, drawn from libtorch's generator, and B zero. `names` maps the
    /// variables of the model to the checkpoint's names: [`hf_names`](crate::checkpoint::hf_names) for a
    /// model of Hugging Face.
    ///
    /// # Errors
    /// `config` is not valid, a target matches no layer, or a layer has an adapter already.
    pub fn attach(config: &LoraConfig, linears: &Linears, names: NameMap, vs: &VarStore) -> Result<Self> {
        config.check_values().map_err(|(key, problem)| Error::Lora(format!("{key} {problem}")))?;
        let modules = linears.modules(names);
        let chosen = targets::select(&config.targets, modules).map_err(Error::Lora)?;
        Self::attach_to(config, chosen, vs)
    }

    /// Attaches adapters to `modules`.
    fn attach_to(config: &LoraConfig, modules: Vec<Module>, vs: &VarStore) -> Result<Self> {
        let variables = VarStore::new(vs.device());
        let switches = Arc::new(Switches::default());
        let mut adapted = Vec::with_capacity(modules.len());
        for module in modules {
            let path = module.name.split('.').fold(variables.root(), |path, part| path / part);
            let adapter = Adapter {
                a: kaiming_uniform(&(&path / "lora_A"), config.rank, module.input),
                b: parameter(&(&path / "lora_B"), "weight", &[module.rows, config.rank], Init::Const(0.0)),
                scaling: config.scaling(),
                dropout: config.dropout,
                switches: Arc::clone(&switches),
            };
            module
                .slot
                .insert(module.part, module.parts, adapter.shallow_clone())
                .map_err(|()| Error::Lora(format!("{} has an adapter already", module.name)))?;
            adapted.push(Adapted { module, adapter });
        }
        for variable in vs.variables().values() {
            let _ = variable.set_requires_grad(false);
        }
        Ok(Self { config: config.clone(), variables, adapted, switches })
    }

    /// The variables of the adapters, which are all that is trained: `MODULE.lora_A.weight` `[rank, in]` and
    /// `MODULE.lora_B.weight` `[out, rank]`.
    pub fn variables(&self) -> &VarStore {
        &self.variables
    }

    /// The config.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The names of the adapted layers, in the checkpoint's names.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.adapted.iter().map(|adapted| adapted.module.name.as_str())
    }

    /// Turns dropout on or off; it is off at first. With gradient checkpointing it must stay on until the
    /// backward pass is done.
    pub fn set_training(&self, on: bool) {
        self.switches.training.store(on, Ordering::Relaxed);
    }

    /// Adds `scaling * B A` to the weights of the model, which then computes without adapters at the cost of
    /// the base model. Without effect where they are merged.
    pub fn merge(&self) {
        if !self.switches.merged.swap(true, Ordering::Relaxed) {
            self.adapted.iter().for_each(|adapted| adapted.add_to_weight(1.0));
        }
    }

    /// Subtracts what [`Lora::merge`] added: the weights are as before, up to rounding. Without effect where
    /// the adapters are not merged.
    pub fn unmerge(&self) {
        if self.switches.merged.swap(false, Ordering::Relaxed) {
            self.adapted.iter().for_each(|adapted| adapted.add_to_weight(-1.0));
        }
    }

    /// Whether the weights of the model contain the adapters.
    pub fn is_merged(&self) -> bool {
        self.switches.merged.load(Ordering::Relaxed)
    }

    /// The variables of the base model `vs`, by name, with the adapters merged into copies; the model itself
    /// does not change. This is what a merged model is saved from.
    pub fn merged_variables(&self, vs: &VarStore) -> Vec<(String, Tensor)> {
        let merged = |(name, variable): (String, Tensor)| {
            let own = || self.adapted.iter().filter(|adapted| adapted.module.variable == name);
            if self.is_merged() || own().next().is_none() {
                return (name, variable);
            }
            let copy = variable.detach().copy();
            own().for_each(|adapted| adapted.add_to(&copy, 1.0));
            (name, copy)
        };
        vs.variables().into_iter().map(merged).collect()
    }
}

impl Adapted {
    fn add_to_weight(&self, sign: f64) {
        self.add_to(&self.module.weight, sign);
    }

    /// Adds `sign * scaling * B A` to the adapted rows of `weight` `[parts * out, in]`.
    fn add_to(&self, weight: &Tensor, sign: f64) {
        let Module { part, rows, .. } = self.module;
        tch::no_grad(|| {
            let delta = self.adapter.delta() * sign;
            let _ = weight.narrow(0, part as i64 * rows, rows).g_add_(&delta);
        });
    }
}

/// Creates `weight` `[rank, input]` below `path` as PEFT does: Kaiming-uniform with slope sqrt(5), which is
/// uniform within 1 / sqrt(input).
fn kaiming_uniform(path: &Path, rank: i64, input: i64) -> Tensor {
    let bound = (input as f64).powf(-0.5);
    parameter(path, "weight", &[rank, input], Init::Uniform { lo: -bound, up: bound })
}
