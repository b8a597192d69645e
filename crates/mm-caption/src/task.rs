//! `run.task = "caption"`: images and captions in, the cross-entropy of the next token or a reward out.

use crate::batch::{CaptionBatch, CaptionItem};
use crate::folder::NAMES;
use crate::objective::Objective;
use crate::rewards::Rewards;
use crate::run_config::{CaptionRunConfig, InputConfig, References};
use crate::{CaptionPipeline, evaluate, init_from};
use mm_core::checkpoint::StoredType;
use mm_core::lora::{Lora, record_linears};
use mm_core::loss::token_cross_entropy;
use mm_core::{OpenOptions, Precision, upload};
use mm_data::{Fault, Map, Sample, SampleRng};
use mm_dist::ProcessGroup;
use mm_text::decoder::{CaptionTokens, NextTokens};
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext, TrainingData};
use rand::RngExt;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains a captioner.
pub struct CaptionTask {
    vs: VarStore,
    /// The variables of a frozen image tower.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
    pipeline: CaptionPipeline,
    /// The tokens before each caption.
    prompt: Vec<u32>,
    objective: Objective,
    group: ProcessGroup,
    preprocess: Map<CaptionItem>,
}

impl Task for CaptionTask {
    const NAME: &'static str = "caption";
    const SUPPORTS: Supports = Supports { layer_decay: true, gradient_checkpointing: true };
    type Config = CaptionRunConfig;
    type Item = CaptionItem;
    type Batch = CaptionBatch;
    type Model = CaptionPipeline;

    fn new(config: &CaptionRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        match &self.objective {
            Objective::Ppo(ppo) => ppo.variables(),
            Objective::TeacherForcing { .. } | Objective::SelfCritical(_) => {
                self.lora.as_ref().map_or(&self.vs, Lora::variables)
            }
        }
    }

    fn frozen(&self) -> Option<&VarStore> {
        (!self.frozen.is_empty()).then_some(&self.frozen)
    }

    fn preprocess(&self) -> Map<CaptionItem> {
        self.preprocess.clone()
    }

    fn collate(&self, items: Vec<CaptionItem>) -> Result<CaptionBatch> {
        let cut_captions = items.iter().filter(|item| item.is_cut).count() as f64 / items.len() as f64;
        let (mut images, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            images.push(item.image);
            rows.push(item.tokens);
            targets.extend(item.target);
        }
        let pixel_values = self.pipeline.processor.normalize_batch(&images).map_err(crate::Error::from)?;
        let device = self.vs.device();
        let next = NextTokens::new(&rows, self.pipeline.description.model.prefix_length());
        let next = next.to_device(device);
        let pixel_values = upload(&pixel_values, device);
        Ok(CaptionBatch { pixel_values, next, cut_captions, targets, experience: None })
    }

    fn next_batch(
        &mut self,
        data: &mut TrainingData<CaptionItem>,
        precision: Precision,
    ) -> Result<CaptionBatch> {
        if let Objective::Ppo(ppo) = &mut self.objective {
            return ppo.next_batch(&self.pipeline, &self.prompt, precision, || data.next_batch());
        }
        self.collate(data.next_batch()?)
    }

    fn loss(&self, batch: &CaptionBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            // Until the step is done: checkpointed blocks run again in the backward pass.
            lora.set_training(true);
        }
        match &self.objective {
            Objective::TeacherForcing { label_smoothing } => self.teacher_forcing(batch, *label_smoothing),
            Objective::SelfCritical(scst) => {
                let (states, targets) = (self.encode(batch), &batch.targets);
                Ok(scst.loss(&self.pipeline, &self.prompt, &states, targets, &self.group)?)
            }
            Objective::Ppo(ppo) => Ok(ppo.loss(&self.pipeline.captioner, batch)?),
        }
    }

    fn after_step(&mut self) {
        if let Some(lora) = &self.lora {
            lora.set_training(false);
        }
    }

    fn depth(&self, name: &str) -> usize {
        let model = &self.pipeline.description.model;
        let behind = |config: &dyn mm_core::nn::TowerSpec, name: &str| {
            (config.blocks() + 1).saturating_sub(config.depth(name))
        };
        match (below(name, model.image_root()), below(name, model.decoder_root())) {
            (Some(name), _) => behind(&*model.image, name),
            (_, Some(name)) => behind(&*model.decoder, name),
            (None, None) => 0,
        }
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        let model = &self.pipeline.description.model;
        match (below(name, model.image_root()), below(name, model.decoder_root())) {
            (Some(name), _) => model.image.has_weight_decay(name),
            (_, Some(name)) => model.decoder.has_weight_decay(name),
            (None, None) => true,
        }
    }

    fn model(&self) -> &CaptionPipeline {
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

    fn is_resumable(&self) -> bool {
        match &self.objective {
            Objective::Ppo(ppo) => ppo.is_between_rollouts(),
            Objective::TeacherForcing { .. } | Objective::SelfCritical(_) => true,
        }
    }

    fn restart(&mut self) {
        if let Objective::Ppo(ppo) = &mut self.objective {
            ppo.restart();
        }
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        match &self.lora {
            // The weights of the checkpoint are those of the adapters: it does not open as a captioner.
            Some(lora) => Ok(lora.save_config(folder, self.base.as_deref())?),
            None => Ok(self.pipeline.save_description(folder)?),
        }
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<CaptionPipeline> {
        Ok(CaptionPipeline::open(name, options)?)
    }

    fn evaluate(
        pipeline: &CaptionPipeline,
        config: &CaptionRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        Ok(evaluate::evaluate(pipeline, config, set, context)?)
    }

    fn describe_batch(&self, batch: &CaptionBatch) -> String {
        let (pixel_values, input_ids) = (batch.pixel_values.size(), batch.next.input_ids.size());
        format!("pixel_values {pixel_values:?}, input_ids {input_ids:?}, {} labels", batch.next.count())
    }
}

impl CaptionTask {
    fn build(config: &CaptionRunConfig, context: &TaskContext) -> crate::Result<Self> {
        let vs = VarStore::new(context.device);
        let (built, linears) = record_linears(|| init_from::build(config, context, &vs));
        let (pipeline, frozen) = built?;
        let lora = config.lora.as_ref().map(|lora| Lora::attach(lora, &linears, NAMES, &vs)).transpose()?;
        let trained = lora.as_ref().map_or(&vs, Lora::variables);
        let objective = Objective::new(config, context, trained)?;
        let prompt = pipeline.prompt(&config.input.prompt, 0)?.tokens;
        Ok(Self {
            preprocess: preprocess(config, &pipeline, &prompt, objective.rewards()),
            vs,
            frozen,
            lora,
            base: config.model.from.clone(),
            prompt,
            pipeline,
            objective,
            group: context.group.clone(),
        })
    }

    /// What the decoder reads of a batch's images. A tower that does not train runs as in inference.
    fn encode(&self, batch: &CaptionBatch) -> Tensor {
        let captioner = &self.pipeline.captioner;
        if self.frozen.is_empty() {
            return captioner.encode(&batch.pixel_values, self.lora.is_none());
        }
        captioner.connect(&tch::no_grad(|| captioner.tower_outputs(&batch.pixel_values, false)))
    }

    /// The mean cross-entropy of the next tokens of all processes.
    fn teacher_forcing(&self, batch: &CaptionBatch, label_smoothing: f64) -> Result<Loss> {
        let next = &batch.next;
        let logits = self.pipeline.captioner.next_token_logits(&self.encode(batch), next);
        let scale = self.group.mean_scale(next.count())?;
        let total = token_cross_entropy(&logits, &next.labels, label_smoothing) * scale;
        let correct = logits.detach().argmax(-1, false).eq_tensor(&next.labels).sum(Kind::Float) * scale;
        let parts = vec![("token_accuracy", correct), ("cut_captions", Tensor::from(batch.cut_captions))];
        Ok(Loss { total, parts })
    }
}

/// The name below the path `root`.
fn below<'a>(name: &'a str, root: &str) -> Option<&'a str> {
    name.strip_prefix(root)?.strip_prefix('.')
}

/// Decodes and augments the image and encodes one caption.
fn preprocess(
    config: &CaptionRunConfig,
    pipeline: &CaptionPipeline,
    prompt: &[u32],
    rewards: Option<&Rewards>,
) -> Map<CaptionItem> {
    let InputConfig { augment, canonical_share, max_tokens, references, .. } = config.input.clone();
    let (background, fast_decode) = (config.data.background, config.data.fast_decode);
    let size = pipeline.description.model.image.image_size() as u32;
    let tokenizer = Arc::clone(&pipeline.tokenizer);
    let prompt = prompt.to_vec();
    let end = pipeline.description.tokens.end;
    let max_tokens = max_tokens.min(pipeline.captioner.decoder().sizes().max_length as usize);
    let target = rewards.map(|rewards| rewards.targets(references));
    let needs_scene = rewards.is_some_and(Rewards::needs_scene);
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        let caption = sample
            .draw_caption(canonical_share, rng)
            .ok_or_else(|| mm_data::Error::bad(Fault::NoCaption, "no caption"))?;
        let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
        let mut token_ids = prompt.clone();
        token_ids.extend(tokenizer.encode_words(caption).map_err(unreadable)?);
        token_ids.push(end);
        let is_cut = token_ids.len() > max_tokens;
        token_ids.truncate(max_tokens);
        let target = target.as_ref().map(|target| target(sample));
        if needs_scene && sample.scene.is_none() {
            return Err(mm_data::Error::bad(Fault::Other, "no scene graph, which the reward `scene` needs"));
        }
        let image = if fast_decode {
            sample.image()?.augmented(&augment, background, size, rng)?
        } else {
            augment.apply(&sample.image()?.decode(background)?, size, rng)
        };
        let tokens = CaptionTokens { token_ids, prompt_length: prompt.len() };
        Ok(CaptionItem { image, tokens, is_cut, seed: rng.random(), target })
    })
}

/// The captions that rewards and evaluations compare with.
pub(crate) fn references(captions: &[String], which: References) -> &[String] {
    match which {
        References::All => captions,
        References::Canonical => &captions[..captions.len().min(1)],
    }
}
