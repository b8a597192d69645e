//! `run.task = "vqa"`: images and questions in, the loss of the answers out.

use crate::batch::QuestionItem;
use crate::run_config::{InputConfig, LossKind, VqaRunConfig};
use crate::{Error, VqaBatch, VqaItem, VqaPipeline, evaluate, init_from};
use mm_core::checkpoint::{StoredType, hf_names};
use mm_core::lora::{Lora, record_linears};
use mm_core::loss::{soft_target_bce, soft_target_cross_entropy};
use mm_core::{OpenOptions, upload};
use mm_data::{Fault, Map, Sample, SampleRng};
use mm_dist::ProcessGroup;
use mm_train::{EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext};
use rand::seq::index::sample as draw;
use std::path::Path;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Trains a model that answers questions about images.
pub struct VqaTask {
    vs: VarStore,
    /// The variables of a frozen image tower.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The folder or hub name that the model comes from.
    base: Option<String>,
    pipeline: VqaPipeline,
    loss: LossKind,
    is_blind: bool,
    group: ProcessGroup,
    preprocess: Map<VqaItem>,
}

impl Task for VqaTask {
    const NAME: &'static str = "vqa";
    const SUPPORTS: Supports = Supports { layer_decay: true, gradient_checkpointing: true };
    type Config = VqaRunConfig;
    type Item = VqaItem;
    type Batch = VqaBatch;
    type Model = VqaPipeline;

    fn new(config: &VqaRunConfig, context: &TaskContext) -> Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        self.lora.as_ref().map_or(&self.vs, Lora::variables)
    }

    fn frozen(&self) -> Option<&VarStore> {
        (!self.frozen.is_empty()).then_some(&self.frozen)
    }

    fn preprocess(&self) -> Map<VqaItem> {
        self.preprocess.clone()
    }

    fn collate(&self, items: Vec<VqaItem>) -> Result<VqaBatch> {
        let (mut images, mut rows, mut image_index, mut scores) = (vec![], vec![], vec![], vec![]);
        let mut cut = 0;
        for (image, item) in (0..).zip(items) {
            images.push(item.image);
            for question in item.questions {
                cut += usize::from(question.is_cut);
                image_index.push(image);
                rows.push(question.token_ids);
                scores.push(question.scores);
            }
        }
        let pixel_values = self.pipeline.processor.normalize_batch(&images).map_err(Error::from)?;
        let unknown = scores.iter().filter(|scores| scores.is_empty()).count();
        let share = |count: usize| count as f64 / rows.len().max(1) as f64;
        Ok(VqaBatch {
            pixel_values: upload(&pixel_values, self.pipeline.device),
            targets: upload(&dense(&scores, self.pipeline.answers().len()), self.pipeline.device),
            cut_questions: share(cut),
            unknown_answers: share(unknown),
            questions: self.pipeline.collate(&rows, &image_index),
        })
    }

    fn loss(&self, batch: &VqaBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            lora.set_training(true);
        }
        // Until the step is done: checkpointed blocks run again in the backward pass.
        self.pipeline.model.set_training(true);
        let logits = self.pipeline.model.logits(&self.encode(batch), &batch.questions);
        let logits = logits.to_kind(Kind::Float);
        let scale = self.group.mean_scale(batch.questions.len())? * batch.questions.len() as f64;
        let loss = match self.loss {
            LossKind::Bce => soft_target_bce(&logits, &batch.targets),
            LossKind::Softmax => soft_target_cross_entropy(&logits, &batch.targets).0,
        };
        let best = logits.detach().argmax(-1, true);
        let accuracy = batch.targets.gather(1, &best, false).mean(Kind::Float) * scale;
        let parts = vec![
            ("accuracy", accuracy),
            ("unknown_answers", Tensor::from(batch.unknown_answers)),
            ("cut_questions", Tensor::from(batch.cut_questions)),
        ];
        Ok(Loss { total: loss * scale, parts })
    }

    fn after_step(&mut self) {
        if let Some(lora) = &self.lora {
            lora.set_training(false);
        }
        self.pipeline.model.set_training(false);
    }

    fn depth(&self, name: &str) -> usize {
        self.pipeline.description.model.depth(name)
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        self.pipeline.description.model.has_weight_decay(name)
    }

    fn model(&self) -> &VqaPipeline {
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

    fn open_model(name: &str, options: &OpenOptions) -> Result<VqaPipeline> {
        Ok(VqaPipeline::open(name, options)?)
    }

    fn evaluate(
        pipeline: &VqaPipeline,
        config: &VqaRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        Ok(evaluate::evaluate(pipeline, config, set, context)?)
    }

    fn describe_batch(&self, batch: &VqaBatch) -> String {
        let (pixel_values, input_ids) = (batch.pixel_values.size(), batch.questions.tokens.input_ids.size());
        format!("pixel_values {pixel_values:?}, input_ids {input_ids:?}, targets {:?}", batch.targets.size())
    }
}

impl VqaTask {
    fn build(config: &VqaRunConfig, context: &TaskContext) -> crate::Result<Self> {
        let vs = VarStore::new(context.device);
        let (built, linears) = record_linears(|| init_from::build(config, context, &vs));
        let (pipeline, frozen) = built?;
        let lora =
            config.lora.as_ref().map(|lora| Lora::attach(lora, &linears, hf_names, &vs)).transpose()?;
        Ok(Self {
            preprocess: preprocess(config, &pipeline),
            vs,
            frozen,
            lora,
            base: config.model.from.clone(),
            pipeline,
            loss: config.loss.kind,
            is_blind: config.input.blind,
            group: context.group.clone(),
        })
    }

    /// What the model reads of a batch's images. A tower that does not train runs as in inference.
    fn encode(&self, batch: &VqaBatch) -> Tensor {
        let model = &self.pipeline.model;
        let pixel_values =
            if self.is_blind { batch.pixel_values.zeros_like() } else { batch.pixel_values.shallow_clone() };
        if self.frozen.is_empty() {
            return model.encode_images(&pixel_values, self.lora.is_none());
        }
        model.connect(&tch::no_grad(|| model.tower_outputs(&pixel_values, false)))
    }
}

/// `scores` of each question as rows of all `classes`.
fn dense(scores: &[Vec<(u32, f32)>], classes: usize) -> Tensor {
    let mut rows = vec![0.0f32; scores.len() * classes];
    for (row, scores) in rows.chunks_mut(classes).zip(scores) {
        for &(class, score) in scores {
            row[class as usize] = score;
        }
    }
    Tensor::from_slice(&rows).view([scores.len() as i64, classes as i64])
}

/// Decodes and augments the image, draws questions about it and encodes them.
fn preprocess(config: &VqaRunConfig, pipeline: &VqaPipeline) -> Map<VqaItem> {
    let InputConfig { augment, questions_per_image, .. } = config.input.clone();
    let (background, fast_decode) = (config.data.background, config.data.fast_decode);
    let size = pipeline.processor.output_size().0;
    let tokenizer = Arc::clone(&pipeline.tokenizer);
    let answers = Arc::clone(&pipeline.description.answers);
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        let asked: Vec<_> = sample.questions.iter().filter(|question| !question.answers.is_empty()).collect();
        if asked.is_empty() {
            return Err(mm_data::Error::bad(Fault::Other, "no question with an answer"));
        }
        let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
        let mut questions = Vec::with_capacity(questions_per_image);
        for place in draw(rng, asked.len(), questions_per_image.min(asked.len())) {
            let question = asked[place];
            let (token_ids, is_cut) = tokenizer.encode_and_tell(&question.text).map_err(unreadable)?;
            questions.push(QuestionItem { token_ids, is_cut, scores: answers.target(question) });
        }
        let image = if fast_decode {
            sample.image()?.augmented(&augment, background, size, rng)?
        } else {
            augment.apply(&sample.image()?.decode(background)?, size, rng)
        };
        Ok(VqaItem { image, questions })
    })
}
