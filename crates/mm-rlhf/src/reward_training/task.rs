//! `run.task = "reward"`: images with judgements in, the loss of their order or rating out.

use super::item::{Preprocess, rating};
use super::model::AestheticModel;
use super::{
    ClipModelConfig, Objective, RewardBatch, RewardItem, RewardModel, RewardModelConfig, RewardRunConfig,
    Trains, evaluate,
};
use mm_clip::{Clip, ClipPipeline, ModelFolder};
use mm_core::checkpoint::hf_names;
use mm_core::lora::{Lora, record_linears};
use mm_core::nn::{TowerSpec, take_frozen};
use mm_core::{OpenOptions, seed};
use mm_data::Map;
use mm_train::{Error, EvalContext, EvalSet, Evaluation, Loss, Result, Supports, Task, TaskContext};
use std::path::Path;
use std::sync::Arc;
use tch::Kind;
use tch::nn::VarStore;

/// The samples whose ratings set the first score of a regression.
const RATINGS_FOR_MEAN: usize = 1000;

/// The variables of a CLIP behind its towers.
const HEAD: [&str; 3] = ["visual_projection.", "text_projection.", "logit_scale"];

/// SigLIP's bias, which is the same for every image.
const BIAS: &str = "logit_bias";

/// Trains a reward.
pub struct RewardTask {
    vs: VarStore,
    /// The variables of a CLIP that do not train.
    frozen: VarStore,
    /// The adapters that are trained in place of the weights, with `[lora]`.
    lora: Option<Lora>,
    /// The folder or hub name of the CLIP.
    from: String,
    model: RewardModel,
    objective: Objective,
    preprocess: Map<RewardItem>,
}

impl Task for RewardTask {
    const NAME: &'static str = "reward";
    const SUPPORTS: Supports = Supports { layer_decay: false, gradient_checkpointing: true };
    type Config = RewardRunConfig;
    type Item = RewardItem;
    type Batch = RewardBatch;
    type Model = RewardModel;

    fn new(config: &RewardRunConfig, context: &TaskContext) -> Result<Self> {
        let vs = VarStore::new(context.device);
        let objective = config.objective.kind;
        let (model, frozen, lora) = match &config.model {
            RewardModelConfig::Clip(model) => build_clip(model, config, context, &vs)?,
            RewardModelConfig::Aesthetic(model) => {
                // A checkpoint brings its own values.
                let starts = objective == Objective::Regression && context.checkpoint.is_none();
                let mean = if starts { mean_rating(context) } else { 0.0 };
                let model = AestheticModel::new(model, &vs, config.run.seed, mean).map_err(Error::task)?;
                (RewardModel::Aesthetic(Box::new(model)), VarStore::new(context.device), None)
            }
        };
        let mut preprocess = Preprocess::new(&model, objective, config.data.background);
        preprocess.fast_decode = config.data.fast_decode;
        preprocess.bootstrap = (model.members() > 1).then_some(config.run.seed);
        let from = config.model.from().to_owned();
        Ok(Self { vs, frozen, lora, from, model, objective, preprocess: preprocess.into_map() })
    }

    fn variables(&self) -> &VarStore {
        self.lora.as_ref().map_or(&self.vs, Lora::variables)
    }

    fn frozen(&self) -> Option<&VarStore> {
        (!self.frozen.is_empty()).then_some(&self.frozen)
    }

    fn preprocess(&self) -> Map<RewardItem> {
        self.preprocess.clone()
    }

    fn collate(&self, items: Vec<RewardItem>) -> Result<RewardBatch> {
        RewardBatch::new(items, &self.model).map_err(Error::task)
    }

    fn loss(&self, batch: &RewardBatch) -> Result<Loss> {
        if let Some(lora) = &self.lora {
            // Until the step is done: checkpointed blocks run again in the backward pass.
            lora.set_training(true);
        }
        let scores = batch.by_item(&self.model.scores(batch).map_err(Error::task)?); // [K, B, L]
        let total = (self.objective.losses(&scores, batch) * &batch.weights).mean(Kind::Float);
        let mut parts = vec![self.objective.agreement(&scores, batch)];
        if let RewardModel::Clip(clip) = &self.model {
            parts.push(("logit_scale", clip.head.logit_scale().detach().exp().mean(Kind::Float)));
        }
        Ok(Loss { total, parts })
    }

    fn after_step(&mut self) {
        match (&self.lora, &mut self.model) {
            (Some(lora), _) => lora.set_training(false),
            (None, RewardModel::Clip(clip)) => clip.head.clamp_logit_scale(),
            (None, RewardModel::Aesthetic(_)) => {}
        }
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        let RewardModel::Clip(clip) = &self.model else { return true };
        let (image, text) = (&clip.config.image, &clip.config.text);
        let towers: [(&str, &dyn TowerSpec); 2] = [(image.root(), &**image), ("text_model", &**text)];
        let below = |root: &str| name.strip_prefix(root)?.strip_prefix('.');
        let found = towers.into_iter().find_map(|(root, tower)| Some(tower.has_weight_decay(below(root)?)));
        found.unwrap_or(true)
    }

    fn model(&self) -> &RewardModel {
        &self.model
    }

    fn save_model(&self, folder: &Path) -> Result<()> {
        let variables = match &self.lora {
            Some(lora) => lora.merged_variables(&self.vs),
            None => [&self.vs, &self.frozen].into_iter().flat_map(|vs| vs.variables()).collect(),
        };
        self.model.save(variables, folder).map_err(Error::task)?;
        match &self.lora {
            Some(lora) => Ok(lora.save_beside_merged(folder, Some(&self.from))?),
            None => Ok(()),
        }
    }

    fn describe_checkpoint(&self, folder: &Path) -> Result<()> {
        match &self.lora {
            // The weights of the checkpoint are those of the adapters: it does not open as a reward.
            Some(lora) => Ok(lora.save_config(folder, Some(&self.from))?),
            None => self.model.describe(folder).map_err(Error::task),
        }
    }

    fn open_model(name: &str, options: &OpenOptions) -> Result<RewardModel> {
        RewardModel::open(name, options).map_err(Error::task)
    }

    fn evaluate(
        model: &RewardModel,
        config: &RewardRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> Result<Evaluation> {
        evaluate::evaluate(model, config.objective.kind, set, context)
    }

    fn describe_batch(&self, batch: &RewardBatch) -> String {
        let (images, lists) = (batch.pixel_values.size(), batch.mask.size());
        match &batch.prompts {
            Some(prompts) => {
                format!(
                    "pixel_values {images:?} in lists {lists:?}, input_ids {:?}",
                    prompts.input_ids.size()
                )
            }
            None => format!("pixel_values {images:?} in lists {lists:?}"),
        }
    }
}

/// Opens the CLIP of `model` on `vs`, moves out of `vs` what does not train, and attaches adapters.
fn build_clip(
    model: &ClipModelConfig,
    config: &RewardRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> mm_clip::Result<(RewardModel, VarStore, Option<Lora>)> {
    let open_own = |checkpoint: &Path| ModelFolder::open(&checkpoint.to_string_lossy());
    let folder = context.open_base(&model.from, ModelFolder::open, open_own)?;
    let mut clip_config = folder.clip()?.clone();
    clip_config.set_gradient_checkpointing(config.train.gradient_checkpointing);
    let has_projection =
        clip_config.image_projection_to().is_some() || clip_config.text_projection_to().is_some();
    if model.trains == Trains::Head && !has_projection {
        let problem = "trains = \"head\" trains the projections to the shared space, and both towers of this \
                       CLIP end there themselves: train all, or set [lora]";
        return Err(mm_clip::Error::Model(problem.to_owned()));
    }
    let (tokenizer, processor) = (folder.tokenizer()?, folder.processor()?);
    let (built, linears) = record_linears(|| folder.build(vs, None, |path| Clip::new(path, &clip_config)));
    let pipeline = ClipPipeline::new(built?, clip_config, Arc::new(tokenizer), processor, vs.device());
    pipeline.format()?; // before the first step: a model that cannot be saved is not trained
    seed::set(config.run.seed, "init", 0);
    let lora = config.lora.as_ref().map(|lora| Lora::attach(lora, &linears, hf_names, vs)).transpose()?;
    let is_frozen = |name: &str| {
        let is_head = HEAD.iter().any(|head| name.starts_with(head));
        name == BIAS || (model.trains == Trains::Head && !is_head)
    };
    // With adapters the whole model is frozen in its place.
    let frozen = if lora.is_some() { VarStore::new(vs.device()) } else { take_frozen(vs, is_frozen) };
    Ok((RewardModel::Clip(Box::new(pipeline)), frozen, lora))
}

/// The mean of the first ratings of the training set, at which the scores of a regression start: otherwise
/// its first steps would only find it. 0 where none can be read.
fn mean_rating(context: &TaskContext) -> f64 {
    let dataset = context.dataset;
    let read = |index| dataset.sample(index).and_then(|sample| rating(&sample)).ok();
    let ratings: Vec<f32> = (0..dataset.len().min(RATINGS_FOR_MEAN)).filter_map(read).collect();
    ratings.iter().map(|&rating| f64::from(rating)).sum::<f64>() / ratings.len().max(1) as f64
}
