//! A pipeline whose denoiser trains, whole or by low-rank adapters: what training from images, from rewards
//! and from preferences share.

mod adapter;

use crate::Result;
use crate::pipeline::{DiffusionPipeline, Family, PipelineOptions};
use mm_core::DeviceConfig;
use mm_core::checkpoint::hf_names;
use mm_core::lora::{Linears, Lora, LoraConfig, record_linears};
use mm_core::nn::take_frozen;
use mm_train::TaskContext;
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// What the names of the autoencoder's variables begin with.
const VAE: &str = "vae.";

/// A pipeline with the variables that train.
#[derive(Debug)]
pub struct TrainablePipeline {
    /// The pipeline, with the weights as they are now.
    pub pipeline: DiffusionPipeline,
    vs: VarStore,
    /// The text encoders and the autoencoder of a pipeline that is fine-tuned.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights.
    lora: Option<Lora>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
}

impl TrainablePipeline {
    /// Opens the pipeline `from`, a diffusers folder or a hub name, to train its denoiser, or adapters of it
    /// by `lora`. The text encoder of a pipeline that is trained here trains too; those of others and the
    /// autoencoder stay as they are.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::open`]; a target of `lora` matches no layer; or a U-Net has no gradient
    /// checkpointing.
    pub fn open(
        from: &str,
        lora: Option<&LoraConfig>,
        gradient_checkpointing: bool,
        context: &TaskContext,
    ) -> Result<Self> {
        let vs = VarStore::new(context.device);
        let (opened, linears) = record_linears(|| open(from, context, &vs, false, gradient_checkpointing));
        let (pipeline, frozen) = opened?;
        Self::new(pipeline, (vs, frozen), lora, &linears, Some(from.to_owned()))
    }

    /// Opens the pipeline `model` with its weights as plain variables, none of which trains: for models that
    /// are compared with others.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::open`].
    pub fn for_inference(model: &str, device: &DeviceConfig) -> Result<Self> {
        let vs = VarStore::new(device.resolve()?);
        let pipeline = DiffusionPipeline::load(model, &PipelineOptions::default(), &vs)?;
        let (frozen, lora, base) = (VarStore::new(vs.device()), None, None);
        Ok(Self { pipeline, vs, frozen, lora, base })
    }

    /// `pipeline`, whose variables are those that train and those that do not, with new adapters of its
    /// layers `linears` by `lora`.
    pub(crate) fn new(
        pipeline: DiffusionPipeline,
        (vs, frozen): (VarStore, VarStore),
        lora: Option<&LoraConfig>,
        linears: &Linears,
        base: Option<String>,
    ) -> Result<Self> {
        let attach = |lora: &LoraConfig| {
            let names = pipeline.denoiser.names();
            // A model that is trained here trains with its text encoder.
            let lora = match pipeline.family {
                Family::Pixel => lora.clone(),
                family => adapter::within(lora, family.denoiser().0, &linears.names(names)),
            };
            Lora::attach(&lora, linears, names, &vs)
        };
        let lora = lora.map(attach).transpose()?;
        Ok(Self { pipeline, vs, frozen, lora, base })
    }

    /// The variables that train.
    pub fn variables(&self) -> &VarStore {
        self.lora.as_ref().map_or(&self.vs, Lora::variables)
    }

    /// All variables of the pipeline, by the names of its parts, without adapters.
    pub(crate) fn pipeline_variables(&self) -> Vec<(String, Tensor)> {
        [&self.vs, &self.frozen].into_iter().flat_map(|vs| vs.variables()).collect()
    }

    /// The variables that do not train, of a pipeline whose checkpoints open as pipelines with them.
    pub fn frozen(&self) -> Option<&VarStore> {
        let opens = self.pipeline.family == Family::Pixel && self.lora.is_none();
        (opens && self.pipeline.vae.is_some()).then_some(&self.frozen)
    }

    /// Turns the dropout of adapters on or off. With gradient checkpointing it must stay on until the
    /// backward pass is done.
    pub fn set_training(&self, on: bool) {
        if let Some(lora) = &self.lora {
            lora.set_training(on);
        }
    }

    /// As [`mm_train::Task::has_weight_decay`].
    pub fn has_weight_decay(&self, name: &str) -> bool {
        !name.contains("embed")
    }

    /// As [`mm_train::Task::hidden_matrices`].
    pub fn hidden_matrices(&self, name: &str) -> usize {
        if name.contains("encoder.layers.") {
            return hf_names(name).len();
        }
        // Not the modulation of norms, which is no map between hidden states, nor their weights.
        match name.contains("blocks.") && !name.contains("norm") {
            true => self.pipeline.denoiser.names()(name).len(),
            false => 0,
        }
    }

    /// Writes the pipeline into the existing folder `folder`, adapters merged, and with adapters their file
    /// beside it, which diffusers' `load_lora_weights` and `mm generate --lora` open.
    ///
    /// # Errors
    /// A file cannot be written, or a number is not finite.
    pub fn save_model(&self, folder: &Path) -> Result<()> {
        let Some(lora) = &self.lora else {
            return self.pipeline.save(self.pipeline_variables(), folder);
        };
        let mut variables = lora.merged_variables(&self.vs);
        variables.extend(self.frozen.variables());
        self.pipeline.save(variables, folder)?;
        adapter::save(lora, folder)
    }

    /// As [`mm_train::Task::describe_checkpoint`].
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        match &self.lora {
            // The weights of the checkpoint are those of the adapters: it does not open as a pipeline.
            Some(lora) => Ok(lora.save_config(folder, self.base.as_deref())?),
            None if self.pipeline.family == Family::Pixel => self.pipeline.save_description(folder),
            // Without the frozen parts it would not open either.
            None => Ok(()),
        }
    }
}

/// Opens `from` on `vs`, or the run's own checkpoint in its place, and moves what does not train into a store
/// of its own: all of it where a new token alone trains.
pub(crate) fn open(
    from: &str,
    context: &TaskContext,
    vs: &VarStore,
    trains_token: bool,
    gradient_checkpointing: bool,
) -> Result<(DiffusionPipeline, VarStore)> {
    let options = PipelineOptions::default();
    let mut pipeline = context.open_base(
        from,
        |from| DiffusionPipeline::load(from, &options, vs),
        |checkpoint| DiffusionPipeline::load(&checkpoint.to_string_lossy(), &options, vs),
    )?;
    if gradient_checkpointing {
        pipeline.denoiser.checkpoint_gradients()?;
    }
    let root = format!("{}.", pipeline.family.denoiser().0);
    let trains_text = pipeline.family == Family::Pixel;
    let is_trained = |name: &str| name.starts_with(&root) || (trains_text && !name.starts_with(VAE));
    let frozen = take_frozen(vs, |name| trains_token || !is_trained(name));
    Ok((pipeline, frozen))
}

/// Moves the autoencoder of a new pipeline on `vs` into a store of its own.
pub(crate) fn take_autoencoder(vs: &VarStore) -> VarStore {
    take_frozen(vs, |name| name.starts_with(VAE))
}
