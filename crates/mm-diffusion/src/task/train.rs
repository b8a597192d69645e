//! The training task.

use super::adapter;
use super::cache;
use super::config::{DiffusionRunConfig, InputConfig, ObjectiveConfig};
use super::denoising::Denoising;
use super::evaluate::evaluate;
use super::init;
use super::inversion::Inversion;
use super::item::{DiffusionBatch, DiffusionItem};
use super::preprocess::{self, PictureReader, buckets};
use crate::pipeline::{DiffusionPipeline, Family, PipelineOptions};
use crate::schedulers::NoiseSchedule;
use mm_core::OpenOptions;
use mm_core::checkpoint::hf_names;
use mm_core::lora::{Lora, record_linears};
use mm_data::{BatchGroups, Map};
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains the denoiser of a pipeline.
pub struct DiffusionTask {
    vs: VarStore,
    /// The text encoders and the autoencoder of a pipeline that is fine-tuned.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The vectors of a new token, which are all that is trained with `[textual_inversion]`.
    inversion: Option<Inversion>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
    pipeline: DiffusionPipeline,
    objective: ObjectiveConfig,
    input: InputConfig,
    /// The bucket of each sample, with `input.buckets`.
    groups: Option<BatchGroups>,
    /// Of the scheduler, where the objective is of a diffusion process.
    schedule: Option<NoiseSchedule>,
    preprocess: Map<DiffusionItem>,
}

impl DiffusionTask {
    fn build(config: &DiffusionRunConfig, context: &TaskContext) -> crate::Result<Self> {
        let vs = VarStore::new(context.device);
        let (built, linears) = record_linears(|| init::build(config, context, &vs));
        let (mut pipeline, frozen) = built?;
        let mut inversion = None;
        if let Some(config) = &config.textual_inversion {
            let (attached, extended) = Inversion::attach(config, pipeline)?;
            (inversion, pipeline) = (Some(attached), extended);
        }
        let lora = config
            .lora
            .as_ref()
            .map(|lora| {
                let names = pipeline.denoiser.names();
                // A model in pixels trains with its text encoder.
                let lora = match pipeline.family {
                    Family::Pixel => lora.clone(),
                    family => adapter::within(lora, family.denoiser().0, &linears.names(names)),
                };
                Lora::attach(&lora, &linears, names, &vs)
            })
            .transpose()?;
        let schedule = match config.objective {
            ObjectiveConfig::Flow(_) => None,
            ObjectiveConfig::Ddpm(_) => Some(pipeline.scheduler.noise_schedule()?),
        };
        let buckets = buckets(config, &pipeline)?;
        let (buckets, groups) = match config.input.buckets {
            None => (buckets, None),
            Some(_) => {
                let batch_size = config.train.micro_batch_size();
                let (buckets, groups) =
                    buckets.divide(&**context.dataset, batch_size, context.group, context.progress)?;
                (buckets, Some(groups))
            }
        };
        let reader = PictureReader::new(config, &pipeline, buckets);
        let cache = config.cache.as_ref();
        let cache = cache.map(|cache| cache::open(cache, config, &pipeline, &reader, context)).transpose()?;
        let preprocess = preprocess::map(config, &pipeline, reader, cache);
        let (base, objective, input) =
            (config.model.from.clone(), config.objective.clone(), config.input.clone());
        Ok(Self {
            vs,
            frozen,
            lora,
            inversion,
            base,
            pipeline,
            objective,
            input,
            groups,
            schedule,
            preprocess,
        })
    }

    fn denoising(&self) -> Denoising<'_> {
        let Self { pipeline, objective, input, schedule, .. } = self;
        Denoising { pipeline, objective, input, schedule: schedule.as_ref() }
    }
}

impl Task for DiffusionTask {
    const NAME: &'static str = "diffusion";
    const SUPPORTS: Supports = Supports { layer_decay: false, gradient_checkpointing: true };
    type Config = DiffusionRunConfig;
    type Item = DiffusionItem;
    type Batch = DiffusionBatch;
    type Model = DiffusionPipeline;

    fn new(config: &DiffusionRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        match (&self.inversion, &self.lora) {
            (Some(inversion), _) => inversion.variables(),
            (None, Some(lora)) => lora.variables(),
            (None, None) => &self.vs,
        }
    }

    fn frozen(&self) -> Option<&VarStore> {
        // A checkpoint opens as a pipeline where the text encoder is trained: it then needs the autoencoder.
        let opens = self.pipeline.family == Family::Pixel && self.lora.is_none();
        (opens && self.pipeline.vae.is_some()).then_some(&self.frozen)
    }

    fn preprocess(&self) -> Map<DiffusionItem> {
        self.preprocess.clone()
    }

    fn batch_groups(&self) -> Option<BatchGroups> {
        self.groups.clone()
    }

    fn collate(&self, items: Vec<DiffusionItem>) -> Result<DiffusionBatch> {
        Ok(self.denoising().batch(items)?)
    }

    fn loss(&self, batch: &DiffusionBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            // Until the step is done: checkpointed blocks run again in the backward pass.
            lora.set_training(true);
        }
        let total = self.denoising().losses(batch)?.mean(Kind::Float);
        let cut_prompts = Tensor::from(batch.cut_prompts).to_device(self.vs.device());
        let mut parts = vec![("cut_prompts", cut_prompts)];
        if self.input.masked_loss {
            parts.push(("without_mask", Tensor::from(batch.without_mask).to_device(self.vs.device())));
        }
        Ok(Loss { total, parts })
    }

    fn after_step(&mut self) {
        if let Some(lora) = &self.lora {
            lora.set_training(false);
        }
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        !name.contains("embed")
    }

    fn hidden_matrices(&self, name: &str) -> usize {
        if name.contains("encoder.layers.") {
            return hf_names(name).len();
        }
        // Not the modulation of norms, which is no map between hidden states, nor their weights.
        match name.contains("blocks.") && !name.contains("norm") {
            true => self.pipeline.denoiser.names()(name).len(),
            false => 0,
        }
    }

    fn model(&self) -> &DiffusionPipeline {
        &self.pipeline
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        let Some(lora) = &self.lora else {
            let variables = [&self.vs, &self.frozen].into_iter().flat_map(|vs| vs.variables()).collect();
            let Some(inversion) = &self.inversion else {
                return Ok(self.pipeline.save(variables, folder)?);
            };
            self.pipeline.save(inversion.added_to(&self.pipeline, variables)?, folder)?;
            return Ok(inversion.save(folder)?);
        };
        let mut variables = lora.merged_variables(&self.vs);
        variables.extend(self.frozen.variables());
        self.pipeline.save(variables, folder)?;
        Ok(adapter::save(lora, folder)?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        if let Some(inversion) = &self.inversion {
            // Without the model it does not open as a pipeline, but with it by `--embedding`.
            return Ok(inversion.save(folder)?);
        }
        match &self.lora {
            // The weights of the checkpoint are those of the adapters: it does not open as a pipeline.
            Some(lora) => Ok(lora.save_config(folder, self.base.as_deref())?),
            None if self.pipeline.family == Family::Pixel => Ok(self.pipeline.save_description(folder)?),
            // Without the frozen parts it would not open either.
            None => Ok(()),
        }
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<DiffusionPipeline> {
        let options = PipelineOptions { open: options.clone(), ..PipelineOptions::default() };
        Ok(DiffusionPipeline::open(name, &options)?)
    }

    fn evaluate(
        pipeline: &DiffusionPipeline,
        config: &DiffusionRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        Ok(evaluate(pipeline, config, set, context)?)
    }

    fn describe_batch(&self, batch: &DiffusionBatch) -> String {
        format!("images {:?}, tokens {:?}", batch.clean.size(), batch.tokens.input_ids.size())
    }
}
