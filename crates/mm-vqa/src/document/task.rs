//! `run.task = "document"`: pages and their fields in, the cross-entropy of the next token out.

use super::batch::{Batching, DocumentBatch, DocumentItem};
use super::loss::{CHARACTER_HEAD, CharacterHead};
use super::run_config::{DocumentRunConfig, LossConfig};
use super::{DocumentPipeline, evaluate, init_from};
use mm_core::OpenOptions;
use mm_core::checkpoint::{StoredType, hf_names};
use mm_core::lora::{Lora, record_linears};
use mm_core::loss::token_cross_entropy;
use mm_core::nn::TowerSpec;
use mm_data::Map;
use mm_dist::ProcessGroup;
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains a model that reads documents.
pub struct DocumentTask {
    vs: VarStore,
    /// The variables of a frozen encoder.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
    pipeline: DocumentPipeline,
    /// The output layer of `loss.characters`.
    characters: Option<CharacterHead>,
    loss: LossConfig,
    group: ProcessGroup,
    batching: Batching,
    preprocess: Map<DocumentItem>,
}

impl Task for DocumentTask {
    const NAME: &'static str = "document";
    const SUPPORTS: Supports = Supports { layer_decay: false, gradient_checkpointing: true };
    type Config = DocumentRunConfig;
    type Item = DocumentItem;
    type Batch = DocumentBatch;
    type Model = DocumentPipeline;

    fn new(config: &DocumentRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        self.lora.as_ref().map_or(&self.vs, Lora::variables)
    }

    fn frozen(&self) -> Option<&VarStore> {
        (!self.frozen.is_empty()).then_some(&self.frozen)
    }

    fn preprocess(&self) -> Map<DocumentItem> {
        self.preprocess.clone()
    }

    fn collate(&self, items: Vec<DocumentItem>) -> Result<DocumentBatch> {
        Ok(self.batching.collate(items, self.pipeline.device)?)
    }

    fn loss(&self, batch: &DocumentBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            // Until the step is done: checkpointed blocks run again in the backward pass.
            lora.set_training(true);
        }
        let (next, model) = (&batch.next, &self.pipeline.model);
        let states = self.encode(batch);
        let (hidden, weights) = match &batch.attention {
            Some(_) => model.forward_with_context_weights(&states, &next.input_ids),
            None => (model.forward(&states, &next.input_ids), Vec::new()),
        };
        let logits = model.logits(&next.select(&hidden));
        let scale = self.group.mean_scale(next.count())?;
        let tokens = token_cross_entropy(&logits, &next.labels, self.loss.label_smoothing) * scale;
        let correct = logits.detach().argmax(-1, false).eq_tensor(&next.labels).sum(Kind::Float) * scale;
        let mut terms = vec![tokens.shallow_clone()];
        let mut parts = vec![("tokens", tokens), ("token_accuracy", correct)];
        if let Some(targets) = &batch.attention {
            let loss = targets.loss(&weights) * self.group.mean_scale(targets.count)?;
            terms.push(&loss * self.loss.attention);
            parts.push(("attention", loss));
        }
        if let (Some(head), Some(targets)) = (&self.characters, &batch.characters) {
            let scale = self.group.mean_scale(targets.count)?;
            let (loss, right) = head.loss(&states, targets);
            let loss = loss * scale;
            terms.push(&loss * self.loss.characters);
            parts.extend([("characters", loss), ("character_accuracy", right * scale)]);
        }
        let total = terms.into_iter().reduce(|sum, term| sum + term).expect("tokens have a loss");
        Ok(Loss { total, parts })
    }

    fn after_step(&mut self) {
        if let Some(lora) = &self.lora {
            lora.set_training(false);
        }
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        let config = &self.pipeline.config;
        match (name.strip_prefix("encoder."), name.strip_prefix("decoder.")) {
            (Some(name), _) => config.encoder.has_weight_decay(name),
            (_, Some(name)) => config.decoder.has_weight_decay(name),
            (None, None) => true,
        }
    }

    fn model(&self) -> &DocumentPipeline {
        &self.pipeline
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        let Some(lora) = &self.lora else {
            let variables = [&self.vs, &self.frozen].into_iter().flat_map(|vs| vs.variables());
            let variables = variables.filter(|(name, _)| !name.starts_with(CHARACTER_HEAD)).collect();
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

    fn open_model(name: &str, options: &OpenOptions) -> Result<DocumentPipeline> {
        Ok(DocumentPipeline::open(name, options)?)
    }

    fn evaluate(
        pipeline: &DocumentPipeline,
        config: &DocumentRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        Ok(evaluate::evaluate(pipeline, config, set, context)?)
    }

    fn describe_batch(&self, batch: &DocumentBatch) -> String {
        let (pixel_values, input_ids) = (batch.pixel_values.size(), batch.next.input_ids.size());
        format!("pixel_values {pixel_values:?}, input_ids {input_ids:?}, {} labels", batch.next.count())
    }
}

impl DocumentTask {
    fn build(config: &DocumentRunConfig, context: &TaskContext) -> crate::Result<Self> {
        let vs = VarStore::new(context.device);
        let (built, linears) = record_linears(|| init_from::build(config, context, &vs));
        let (pipeline, frozen) = built?;
        let lora =
            config.lora.as_ref().map(|lora| Lora::attach(lora, &linears, hf_names, &vs)).transpose()?;
        let characters = (config.loss.characters > 0.0).then(|| {
            let width = pipeline.config.decoder.d_model;
            CharacterHead::new(&vs.root(), width, pipeline.tokenizer.vocab_size() as i64)
        });
        let batching = Batching::new(config, &pipeline);
        Ok(Self {
            preprocess: batching.preprocess(config, &pipeline),
            vs,
            frozen,
            lora,
            base: config.model.from.clone(),
            pipeline,
            characters,
            loss: config.loss,
            group: context.group.clone(),
            batching,
        })
    }

    /// The encoder's tokens of a batch's pages. An encoder that does not train runs as in inference.
    fn encode(&self, batch: &DocumentBatch) -> Tensor {
        let encode = || self.pipeline.model.encode(&batch.pixel_values);
        if self.frozen.is_empty() { encode() } else { tch::no_grad(encode) }
    }
}
