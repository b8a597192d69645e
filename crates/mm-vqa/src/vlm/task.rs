//! `run.task = "vlm"`: conversations about images in, the cross-entropy of the answers' tokens out.

use super::batch::{Batching, VlmBatch, VlmItem};
use super::run_config::{LossConfig, TrainedParts, VlmRunConfig};
use super::{VlmPipeline, evaluate, init_from};
use mm_core::OpenOptions;
use mm_core::checkpoint::StoredType;
use mm_core::lora::{Lora, record_linears};
use mm_core::loss::token_cross_entropy;
use mm_data::Map;
use mm_dist::ProcessGroup;
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains a vision-language model.
pub struct VlmTask {
    vs: VarStore,
    /// The variables of the parts that do not train.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
    pipeline: VlmPipeline,
    trained: TrainedParts,
    loss: LossConfig,
    group: ProcessGroup,
    batching: Batching,
}

impl Task for VlmTask {
    const NAME: &'static str = "vlm";
    const SUPPORTS: Supports = Supports { layer_decay: true, gradient_checkpointing: true };
    type Config = VlmRunConfig;
    type Item = VlmItem;
    type Batch = VlmBatch;
    type Model = VlmPipeline;

    fn new(config: &VlmRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        self.lora.as_ref().map_or(&self.vs, Lora::variables)
    }

    fn frozen(&self) -> Option<&VarStore> {
        (!self.frozen.is_empty()).then_some(&self.frozen)
    }

    fn preprocess(&self) -> Map<VlmItem> {
        self.batching.preprocess()
    }

    fn collate(&self, items: Vec<VlmItem>) -> Result<VlmBatch> {
        Ok(self.batching.collate(items, self.pipeline.device)?)
    }

    fn loss(&self, batch: &VlmBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            // Until the step is done: checkpointed blocks run again in the backward pass.
            lora.set_training(true);
        }
        let (rows, next) = (&batch.rows, &batch.rows.next);
        let features = self.features(batch);
        let logits = rows.logits(&self.pipeline.model, batch.has_images.then_some(&features))?;
        let scale = self.group.mean_scale(next.count())?;
        let mut total = token_cross_entropy(&logits, &next.labels, self.loss.label_smoothing) * scale;
        if !batch.has_images {
            // The connector has a gradient of zero, where it is all that trains and in every process alike.
            total += features.sum(Kind::Float) * 0.0;
        }
        let correct = logits.detach().argmax(-1, false).eq_tensor(&next.labels).sum(Kind::Float) * scale;
        let fill = Tensor::from(rows.fill);
        Ok(Loss { total, parts: vec![("token_accuracy", correct), ("row_fill", fill)] })
    }

    fn after_step(&mut self) {
        if let Some(lora) = &self.lora {
            lora.set_training(false);
        }
    }

    fn depth(&self, name: &str) -> usize {
        self.pipeline.config.depth(name)
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        self.pipeline.config.has_weight_decay(name)
    }

    fn model(&self) -> &VlmPipeline {
        &self.pipeline
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        let Some(lora) = &self.lora else {
            let variables = [&self.vs, &self.frozen].into_iter().flat_map(|vs| vs.variables()).collect();
            return Ok(self.pipeline.save(variables, folder, StoredType::F32)?);
        };
        self.pipeline.save(lora.merged_variables(&self.vs), folder, StoredType::F32)?;
        Ok(lora.save_beside_merged(folder, self.base.as_deref())?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        match &self.lora {
            // The weights of the checkpoint are those of the adapters: it does not open as a model.
            Some(lora) => Ok(lora.save_config(folder, self.base.as_deref())?),
            None => Ok(self.pipeline.save_description(folder)?),
        }
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<VlmPipeline> {
        Ok(VlmPipeline::open(name, options)?)
    }

    fn evaluate(
        pipeline: &VlmPipeline,
        config: &VlmRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        Ok(evaluate::evaluate(pipeline, config, set, context)?)
    }

    fn describe_batch(&self, batch: &VlmBatch) -> String {
        let next = &batch.rows.next;
        let (pixel_values, input_ids) = (batch.pixel_values.size(), next.input_ids.size());
        let (texts, labels) = (next.lengths.len(), next.count());
        format!("pixel_values {pixel_values:?}, input_ids {input_ids:?} of {texts} texts, {labels} labels")
    }
}

impl VlmTask {
    fn build(config: &VlmRunConfig, context: &TaskContext) -> crate::Result<Self> {
        let vs = VarStore::new(context.device);
        let (built, linears) = record_linears(|| init_from::build(config, context, &vs));
        let (pipeline, frozen) = built?;
        let names = pipeline.config.family.lora_names();
        let lora = config.lora.as_ref().map(|lora| Lora::attach(lora, &linears, names, &vs)).transpose()?;
        Ok(Self {
            batching: Batching::new(config, &pipeline)?,
            vs,
            frozen,
            lora,
            base: config.model.from.clone(),
            pipeline,
            trained: config.model.train,
            loss: config.loss,
            group: context.group.clone(),
        })
    }

    /// The vectors of a batch's tiles. A tower that does not train runs as in inference.
    fn features(&self, batch: &VlmBatch) -> Tensor {
        let model = &self.pipeline.model;
        match self.trained {
            TrainedParts::All => model.image_features(&batch.pixel_values),
            TrainedParts::Text | TrainedParts::Connector => {
                model.connect(&tch::no_grad(|| model.tower_outputs(&batch.pixel_values)))
            }
        }
    }
}
