//! `run.task = "vqa"`: images and questions in, the loss of the answers out.

use crate::batch::{QuestionItem, Target, Targets};
use crate::questions::QuestionTokens;
use crate::run_config::{InputConfig, LossConfig, LossKind, VqaRunConfig};
use crate::{
    Error, ImageStates, VqaBatch, VqaItem, VqaModel, VqaPipeline, VqaProcessor, evaluate, init_from,
};
use mm_core::OpenOptions;
use mm_core::checkpoint::{StoredType, hf_names};
use mm_core::lora::{Lora, record_linears};
use mm_core::loss::{soft_target_bce, soft_target_cross_entropy, weighted_token_cross_entropy};
use mm_data::{Fault, Map, Sample, SampleRng};
use mm_dist::ProcessGroup;
use mm_text::decoder::NextTokens;
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
    loss: LossConfig,
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
        let (mut images, mut rows, mut image_index, mut targets) = (vec![], vec![], vec![], vec![]);
        let mut cut = 0;
        for (image, item) in (0..).zip(items) {
            images.push(item.image);
            for question in item.questions {
                cut += usize::from(question.is_cut);
                image_index.push(image);
                rows.push(question.token_ids);
                targets.push(question.target);
            }
        }
        let device = self.pipeline.device;
        let unknown = targets.iter().filter(|target| is_unknown(target)).count();
        let share = |count: usize| count as f64 / rows.len().max(1) as f64;
        let images = self.pipeline.parts.processor.normalize_batch(&images)?;
        let classes = self.pipeline.parts.answers.as_ref().map_or(0, |answers| answers.len());
        Ok(VqaBatch {
            images: images.to_device(device),
            targets: Targets::new(targets, classes, device),
            cut_questions: share(cut),
            unknown_answers: share(unknown),
            questions: self.pipeline.question_tokenizer().collate(&rows, image_index, device),
        })
    }

    fn loss(&self, batch: &VqaBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            lora.set_training(true);
        }
        // Until the step is done: checkpointed blocks run again in the backward pass.
        self.pipeline.model.set_training(true);
        let states = self.encode(batch)?;
        // The sum over the questions of this process becomes the mean over those of all.
        let scale = self.group.mean_scale(batch.questions.len())?;
        let (sum, accuracy) = match &batch.targets {
            Targets::Scores(targets) => self.classify(&states, batch, targets)?,
            Targets::Texts { next, question_index, weights } => {
                self.decode(&states, batch, next, question_index, weights)?
            }
        };
        let parts = vec![
            ("accuracy", accuracy * scale),
            ("unknown_answers", Tensor::from(batch.unknown_answers)),
            ("cut_questions", Tensor::from(batch.cut_questions)),
        ];
        Ok(Loss { total: sum * scale, parts })
    }

    fn after_step(&mut self) {
        if let Some(lora) = &self.lora {
            lora.set_training(false);
        }
        self.pipeline.model.set_training(false);
    }

    fn depth(&self, name: &str) -> usize {
        self.pipeline.config.depth(name)
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        self.pipeline.config.has_weight_decay(name)
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
        let (pixels, ids) = (batch.images.pixel_values().size(), batch.questions.tokens.input_ids.size());
        let targets = match &batch.targets {
            Targets::Scores(targets) => format!("targets {:?}", targets.size()),
            Targets::Texts { next, .. } => format!("answers {:?}", next.input_ids.size()),
        };
        format!("pixel_values {pixels:?}, input_ids {ids:?}, {targets}")
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
            loss: config.loss,
            is_blind: config.input.blind,
            group: context.group.clone(),
        })
    }

    /// What questions of a batch are asked about. A tower that does not train runs as in inference.
    fn encode(&self, batch: &VqaBatch) -> crate::Result<ImageStates> {
        let model = &self.pipeline.model;
        let blank = self.is_blind.then(|| batch.images.blanked());
        let images = blank.as_ref().unwrap_or(&batch.images);
        if self.frozen.is_empty() {
            return model.encode_images(images, self.lora.is_none());
        }
        Ok(model.connect(tch::no_grad(|| model.tower_outputs(images, false))?))
    }

    /// The sums over questions of the loss of a classifier and of the scores of its best answers.
    fn classify(
        &self,
        states: &ImageStates,
        batch: &VqaBatch,
        targets: &Tensor,
    ) -> crate::Result<(Tensor, Tensor)> {
        let logits = self.pipeline.model.logits(states, &batch.questions)?.to_kind(Kind::Float);
        let mean = match self.loss.kind {
            LossKind::Bce => soft_target_bce(&logits, targets),
            LossKind::Softmax => soft_target_cross_entropy(&logits, targets).0,
        };
        let best = logits.detach().argmax(-1, true);
        let scores = targets.gather(1, &best, false).sum(Kind::Float);
        Ok((mean * batch.questions.len() as f64, scores))
    }

    /// The sums over questions of the loss of a decoder, each answer weighted by its share of the given ones,
    /// and of the share of right next tokens.
    fn decode(
        &self,
        states: &ImageStates,
        batch: &VqaBatch,
        next: &NextTokens,
        question_index: &Tensor,
        weights: &Tensor,
    ) -> crate::Result<(Tensor, Tensor)> {
        let (VqaModel::Blip(model), ImageStates::Tokens(tokens)) = (&self.pipeline.model, states) else {
            return Err(Error::Model("the model decodes no answers".to_owned()));
        };
        let questions = &batch.questions;
        let context = model.encode_questions(tokens, &questions.image_index, &questions.tokens)?;
        let logits = model.next_token_logits(&context.index_select(question_index), next);
        let sum = weighted_token_cross_entropy(&logits, &next.labels, weights, self.loss.label_smoothing);
        let correct = logits.detach().argmax(-1, false).eq_tensor(&next.labels).mean(Kind::Float);
        Ok((sum, correct * questions.len() as f64))
    }
}

/// Whether a classifier has none of the answers.
fn is_unknown(target: &Target) -> bool {
    matches!(target, Target::Scores(scores) if scores.is_empty())
}

/// Decodes and augments the image, draws questions about it and encodes them.
fn preprocess(config: &VqaRunConfig, pipeline: &VqaPipeline) -> Map<VqaItem> {
    let InputConfig { augment, questions_per_image, .. } = config.input.clone();
    let (background, fast_decode) = (config.data.background, config.data.fast_decode);
    let processor = pipeline.parts.processor.clone();
    let tokenizer = pipeline.question_tokenizer();
    let target = Target::of(pipeline);
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        let asked: Vec<_> = sample.questions.iter().filter(|question| !question.answers.is_empty()).collect();
        if asked.is_empty() {
            return Err(mm_data::Error::bad(Fault::Other, "no question with an answer"));
        }
        let unreadable = |error: mm_text::Error| mm_data::Error::bad(Fault::Text, error.to_string());
        let mut questions = Vec::with_capacity(questions_per_image);
        for place in draw(rng, asked.len(), questions_per_image.min(asked.len())) {
            let question = asked[place];
            let QuestionTokens { ids, is_cut } = tokenizer.encode(&question.text).map_err(unreadable)?;
            let target = target(question).map_err(unreadable)?;
            questions.push(QuestionItem { token_ids: ids, is_cut, target });
        }
        let image = sample.image()?;
        let image = match &processor {
            VqaProcessor::Fixed(processor) => {
                let size = processor.output_size().0;
                if fast_decode {
                    image.augmented(&augment, background, size, rng)?
                } else {
                    augment.apply(&image.decode(background)?, size, rng)
                }
            }
            // Images keep their ratio: nothing is cropped.
            VqaProcessor::Padded(processor) => {
                let bad = |error: mm_vision::Error| mm_data::Error::bad(Fault::Image, error.to_string());
                processor.resize(&image.decode(background)?).map_err(bad)?
            }
        };
        Ok(VqaItem { image, questions })
    })
}
