//! The training task.

use super::cache;
use super::config::{DiffusionRunConfig, InputConfig, ObjectiveConfig};
use super::denoising::Denoising;
use super::evaluate::evaluate;
use super::init;
use super::inversion::Inversion;
use super::item::{DiffusionBatch, DiffusionItem};
use super::preprocess::{self, PictureReader, buckets};
use crate::pipeline::{DiffusionPipeline, PipelineOptions};
use crate::schedulers::NoiseSchedule;
use crate::trainable::TrainablePipeline;
use mm_core::OpenOptions;
use mm_core::lora::record_linears;
use mm_data::{BatchGroups, Map};
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains the denoiser of a pipeline.
pub struct DiffusionTask {
    model: TrainablePipeline,
    /// The vectors of a new token, which are all that is trained with `[textual_inversion]`.
    inversion: Option<Inversion>,
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
        let base = config.model.from.clone();
        let model = TrainablePipeline::new(pipeline, (vs, frozen), config.lora.as_ref(), &linears, base)?;
        let pipeline = &model.pipeline;
        let schedule = match config.objective {
            ObjectiveConfig::Flow(_) => None,
            ObjectiveConfig::Ddpm(_) => Some(pipeline.scheduler.noise_schedule()?),
        };
        let buckets = buckets(config, pipeline)?;
        let (buckets, groups) = match config.input.buckets {
            None => (buckets, None),
            Some(_) => {
                let batch_size = config.train.micro_batch_size();
                let (buckets, groups) =
                    buckets.divide(&**context.dataset, batch_size, context.group, context.progress)?;
                (buckets, Some(groups))
            }
        };
        let reader = PictureReader::new(config, pipeline, buckets);
        let cache = config.cache.as_ref();
        let cache = cache.map(|cache| cache::open(cache, config, pipeline, &reader, context)).transpose()?;
        let preprocess = preprocess::map(config, pipeline, reader, cache);
        let (objective, input) = (config.objective.clone(), config.input.clone());
        Ok(Self { model, inversion, objective, input, groups, schedule, preprocess })
    }

    fn denoising(&self) -> Denoising<'_> {
        let Self { model, objective, input, schedule, .. } = self;
        Denoising { pipeline: &model.pipeline, objective, input, schedule: schedule.as_ref() }
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
        self.inversion.as_ref().map_or_else(|| self.model.variables(), Inversion::variables)
    }

    fn frozen(&self) -> Option<&VarStore> {
        self.model.frozen()
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
        // Until the step is done: checkpointed blocks run again in the backward pass.
        self.model.set_training(true);
        let total = self.denoising().losses(batch)?.mean(Kind::Float);
        let cut_prompts = Tensor::from(batch.cut_prompts).to_device(self.model.pipeline.device);
        let mut parts = vec![("cut_prompts", cut_prompts)];
        if self.input.masked_loss {
            parts.push((
                "without_mask",
                Tensor::from(batch.without_mask).to_device(self.model.pipeline.device),
            ));
        }
        Ok(Loss { total, parts })
    }

    fn after_step(&mut self) {
        self.model.set_training(false);
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        self.model.has_weight_decay(name)
    }

    fn hidden_matrices(&self, name: &str) -> usize {
        self.model.hidden_matrices(name)
    }

    fn model(&self) -> &DiffusionPipeline {
        &self.model.pipeline
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        let Some(inversion) = &self.inversion else { return Ok(self.model.save_model(folder)?) };
        let (pipeline, variables) = (&self.model.pipeline, self.model.pipeline_variables());
        pipeline.save(inversion.added_to(pipeline, variables)?, folder)?;
        Ok(inversion.save(folder)?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        match &self.inversion {
            // Without the model it does not open as a pipeline, but with it by `--embedding`.
            Some(inversion) => Ok(inversion.save(folder)?),
            None => Ok(self.model.describe_checkpoint(folder)?),
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
