//! `run.task = "clip"`: images and captions in, the contrastive loss out.

use crate::batch::{ClipBatch, ClipItem, TextInput};
use crate::cached_text_features::CachedTextFeatures;
use crate::encoder::unit_rows;
use crate::folder::CheckpointFormat;
use crate::init_from::InitFrom;
use crate::layer_groups::{group_of, has_weight_decay};
use crate::{ClipPipeline, ClipRunConfig, Embedded, Lock, LossConfig, Templates};
use crate::{grad_cache, sections};
use mm_core::checkpoint::{StoredType, hf_names};
use mm_core::lora::{Lora, record_linears};
use mm_core::{OpenOptions, seed, upload};
use mm_data::{Fault, Map};
use mm_dist::{Contrastive, ContrastiveConfig};
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, MicroBatch, Result, Supports, Task, TaskContext};
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains a CLIP or SigLIP.
pub struct ClipTask {
    vs: VarStore,
    /// The variables of locked layers.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
    pipeline: ClipPipeline,
    /// The layout that the finished model is saved in.
    format: CheckpointFormat,
    cached_text_features: Option<CachedTextFeatures>,
    image_lock: Option<Lock>,
    contrastive: Contrastive,
    /// Samples of this process that are embedded with a graph at once; none: all.
    grad_cache_chunk: Option<i64>,
    preprocess: Map<ClipItem>,
}

impl Task for ClipTask {
    const NAME: &'static str = "clip";
    const SUPPORTS: Supports = Supports { layer_decay: true, gradient_checkpointing: true };
    type Config = ClipRunConfig;
    type Item = ClipItem;
    type Batch = ClipBatch;
    type Model = ClipPipeline;

    fn new(config: &ClipRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        self.lora.as_ref().map_or(&self.vs, Lora::variables)
    }

    fn frozen(&self) -> Option<&VarStore> {
        (!self.frozen.is_empty()).then_some(&self.frozen)
    }

    fn preprocess(&self) -> Map<ClipItem> {
        self.preprocess.clone()
    }

    fn collate(&self, items: Vec<ClipItem>) -> Result<ClipBatch> {
        let cut_captions = items.iter().filter(|item| item.is_cut).count() as f64 / items.len() as f64;
        let (images, rows): (Vec<_>, Vec<_>) =
            items.into_iter().map(|item| (item.image, item.token_ids)).unzip();
        let ClipPipeline { image, text, .. } = &self.pipeline;
        let pixel_values = image.processor.normalize_batch(&images).map_err(crate::Error::from)?;
        let device = self.vs.device();
        let texts = match self.cached_text_features.as_ref().and_then(|texts| texts.pooled(&rows)) {
            Some(pooled) => TextInput::Pooled(pooled),
            None => TextInput::Tokens(text.tokenizer.collate(&rows, text.padding).to_device(device)),
        };
        Ok(ClipBatch { pixel_values: upload(&pixel_values, device), texts, cut_captions })
    }

    fn loss(&self, batch: &ClipBatch) -> Result<Loss> {
        self.compare(&self.embed(batch), batch.cut_captions)
    }

    fn backward(&self, batch: &ClipBatch, micro_batch: &MicroBatch) -> Result<Loss> {
        match self.grad_cache_chunk {
            Some(chunk) if chunk < batch.pixel_values.size()[0] => {
                let compare = |rows: &[Tensor; 2]| self.compare(rows, batch.cut_captions);
                grad_cache::backward(batch, chunk, micro_batch, |chunk| self.embed(chunk), compare)
            }
            _ => micro_batch.forward_backward(|| self.loss(batch)),
        }
    }

    fn after_step(&mut self) {
        match &self.lora {
            Some(lora) => lora.set_training(false),
            None => self.pipeline.head.clamp_logit_scale(),
        }
    }

    fn depth(&self, name: &str) -> usize {
        group_of(name, &self.pipeline.config).map_or(0, |group| group.behind)
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        has_weight_decay(name, &self.pipeline.config)
    }

    fn model(&self) -> &ClipPipeline {
        &self.pipeline
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        let Some(lora) = &self.lora else {
            return Ok(self.pipeline.save(
                &[&self.vs, &self.frozen],
                folder,
                self.format,
                StoredType::F32,
            )?);
        };
        let merged = lora.merged_variables(&self.vs);
        self.pipeline.save_variables(merged, folder, self.format, StoredType::F32)?;
        Ok(lora.save_beside_merged(folder, self.base.as_deref())?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        match &self.lora {
            // The weights of the checkpoint are those of the adapters: it does not open as a CLIP.
            Some(lora) => Ok(lora.save_config(folder, self.base.as_deref())?),
            None => Ok(self.pipeline.save_description(folder)?),
        }
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<ClipPipeline> {
        Ok(ClipPipeline::open(name, options)?)
    }

    fn evaluate(
        pipeline: &ClipPipeline,
        config: &ClipRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        let templates = match &config.zero_shot.templates {
            Some(file) => Templates::read(file)?,
            None => Templates::default(),
        };
        let embedded = Embedded::embed_set(&pipeline.image, Some(&pipeline.text), set, context)?;
        let mut evaluation = embedded.evaluate(pipeline, set, &templates, context.batch_size)?;
        if context.wants_sections {
            evaluation.sections = sections::draw(pipeline, set, &embedded)?;
        }
        Ok(evaluation)
    }

    fn describe_batch(&self, batch: &ClipBatch) -> String {
        let (name, texts) = match &batch.texts {
            TextInput::Tokens(tokens) => ("input_ids", &tokens.input_ids),
            TextInput::Pooled(pooled) => ("cached text features", pooled),
        };
        format!("pixel_values {:?}, {name} {:?}", batch.pixel_values.size(), texts.size())
    }
}

impl ClipTask {
    fn build(config: &ClipRunConfig, context: &TaskContext) -> crate::Result<Self> {
        if let Some(file) = &config.zero_shot.templates {
            Templates::read(file)?; // a mistake in it shows now, not at the first evaluation
        }
        let mut init = InitFrom::open(&config.model, context.checkpoint)?;
        let tokenizer = init.tokenizer(config.tokenizer.as_ref(), context)?;
        let (processor, model_config) = (init.processor()?, init.config.clone());
        let has_batch_norm = model_config.image.has_batch_norm() && config.model.lock_image.is_none();
        if config.loss.grad_cache_chunk.is_some() && has_batch_norm {
            let reason = "a ResNet's batch norm needs the whole batch at once: use a ViT, or remove the key";
            return Err(crate::Error::Model(format!("loss.grad_cache_chunk: {reason}")));
        }

        let vs = VarStore::new(context.device);
        seed::set(config.run.seed, "init", 0);
        init.config.set_gradient_checkpointing(config.train.gradient_checkpointing);
        let (built, linears) = record_linears(|| init.build(&vs));
        let (clip, frozen) = built?;
        let lora =
            config.lora.as_ref().map(|lora| Lora::attach(lora, &linears, hf_names, &vs)).transpose()?;
        let pipeline = ClipPipeline::new(clip, model_config, Arc::new(tokenizer), processor, vs.device());
        let format = pipeline.format()?; // before the first step: a model that cannot be saved is not trained
        if format != CheckpointFormat::Hf {
            tracing::info!("the model will be saved in {format}, as transformers has no class for all of it");
        }
        let is_text_locked = config.model.lock_text.is_some_and(Lock::holds_tower);
        let cached_text_features =
            if is_text_locked { CachedTextFeatures::new(&pipeline.text, context)? } else { None };
        let LossConfig { logits, tile, grad_cache_chunk } = config.loss;
        Ok(Self {
            preprocess: preprocess(config, &pipeline),
            vs,
            frozen,
            lora,
            base: config.model.from.clone(),
            pipeline,
            format,
            cached_text_features,
            image_lock: config.model.lock_image,
            contrastive: Contrastive::new(context.group, ContrastiveConfig { logits, tile }),
            grad_cache_chunk: grad_cache_chunk.map(|chunk| chunk as i64),
        })
    }

    /// Unit rows `[B, D]` of a batch's images and texts.
    fn embed(&self, batch: &ClipBatch) -> [Tensor; 2] {
        if let Some(lora) = &self.lora {
            // Until the step is done: checkpointed blocks run again in the backward pass.
            lora.set_training(true);
        }
        let ClipPipeline { image, text, .. } = &self.pipeline;
        let pooled = match self.image_lock {
            Some(lock) if lock.holds_tower() => {
                tch::no_grad(|| image.encoder.pool(&batch.pixel_values, false))
            }
            // A frozen tower runs as in inference: no dropped patches, no batch statistics.
            lock => image.encoder.pool(&batch.pixel_values, lock.is_none() && self.lora.is_none()),
        };
        let image_embeds = unit_rows(&image.encoder.project(pooled));
        let text_embeds = match &batch.texts {
            TextInput::Tokens(tokens) => text.encoder.encode(tokens),
            TextInput::Pooled(pooled) => unit_rows(&text.encoder.project(pooled.shallow_clone())),
        };
        [image_embeds, text_embeds]
    }

    /// The loss of unit rows `[B, D]` of images and texts.
    fn compare(&self, [image_embeds, text_embeds]: &[Tensor; 2], cut_captions: f64) -> Result<Loss> {
        let head = &self.pipeline.head;
        let total = head.loss(&self.contrastive, image_embeds, text_embeds)?;
        let logit_scale = head.logit_scale().detach().exp().mean(Kind::Float);
        let parts = vec![("logit_scale", logit_scale), ("cut_captions", Tensor::from(cut_captions))];
        Ok(Loss { total, parts })
    }
}

/// Decodes and augments the image and encodes one caption.
fn preprocess(config: &ClipRunConfig, pipeline: &ClipPipeline) -> Map<ClipItem> {
    let augment = config.input.augment.clone();
    let canonical_share = config.input.canonical_share;
    let (background, fast_decode) = (config.data.background, config.data.fast_decode);
    let size = pipeline.config.image.image_size() as u32;
    let tokenizer = Arc::clone(&pipeline.text.tokenizer);
    Arc::new(move |sample: &mm_data::Sample, rng: &mut mm_data::SampleRng| {
        let caption = sample
            .draw_caption(canonical_share, rng)
            .ok_or_else(|| mm_data::Error::bad(Fault::NoCaption, "no caption"))?;
        let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
        let (token_ids, is_cut) = tokenizer.encode_and_tell(caption).map_err(unreadable)?;
        let image = if fast_decode {
            sample.image()?.augmented(&augment, background, size, rng)?
        } else {
            augment.apply(&sample.image()?.decode(background)?, size, rng)
        };
        Ok(ClipItem { image, token_ids, is_cut })
    })
}
