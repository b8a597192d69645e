//! The training task.

use super::config::DpoRunConfig;
use super::item::{self, DpoBatch, DpoItem};
use crate::compare::{AlignedModel, GuardState, evaluate};
use crate::policy::diffusion_dpo_loss;
use crate::{Error, Result};
use mm_core::{OpenOptions, read_json, upload, write_json};
use mm_data::Map;
use mm_diffusion::{FlowConfig, ImageNoise, TrainingLevels};
use mm_train::{
    EvalContext, EvalSet, Evaluation, Loss, Metric, MicroBatch, Supports, Task, TaskContext, gather,
};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// The file of a checkpoint with what the weights do not hold.
const STATE_FILE: &str = "dpo_state.json";

/// Moves a diffusion model toward the preferred images of pairs.
pub struct DpoTask {
    model: AlignedModel,
    config: DpoRunConfig,
    levels: TrainingLevels,
    guard: GuardState,
}

impl DpoTask {
    fn build(config: &DpoRunConfig, context: &TaskContext) -> Result<Self> {
        mm_core::seed::set(config.run.seed, "init", 0);
        let model = AlignedModel::new(&config.comparison(), config.lora.as_ref(), context)?;
        let levels = levels(config, &model)?;
        let guard = match context.checkpoint {
            Some(checkpoint) => read_json(&checkpoint.join(STATE_FILE))?,
            None => GuardState::default(),
        };
        Ok(Self { model, config: config.clone(), levels, guard })
    }

    /// The errors of winners and losers, `[N]` each, with the weights as they are now.
    fn errors(&self, batch: &DpoBatch) -> Result<[Tensor; 2]> {
        errors(&self.model, batch)
    }

    fn run_backward(&self, batch: &DpoBatch, micro_batch: &MicroBatch) -> Result<Loss> {
        let reference = &self.model.baseline_of_run().reference;
        let initial = reference.in_place(|| tch::no_grad(|| micro_batch.forward(|| self.errors(batch))))?;
        let [winner, loser] = micro_batch.forward(|| self.errors(batch))?;
        let [reference_winner, reference_loser] = initial;
        let beta = self.config.dpo.halved_beta();
        let (losses, accuracy) =
            diffusion_dpo_loss(&winner, &loser, &reference_winner, &reference_loser, beta);
        let total = losses.mean(Kind::Float);
        micro_batch.sync_gradients_on_next_backward();
        micro_batch.backward(&(&total * micro_batch.loss_scale))?;
        let parts = vec![
            ("implicit_accuracy", accuracy.mean(Kind::Float)),
            ("winner_error", winner.detach().mean(Kind::Float)),
            ("loser_error", loser.detach().mean(Kind::Float)),
        ];
        Ok(Loss { total: total.detach(), parts })
    }
}

/// The levels of noise that pairs are trained at.
fn levels(config: &DpoRunConfig, model: &AlignedModel) -> Result<TrainingLevels> {
    let flow = FlowConfig {
        logit_mean: config.dpo.logit_mean,
        logit_std: config.dpo.logit_std,
        ..FlowConfig::default()
    };
    Ok(model.policy.pipeline.training_levels(&flow)?)
}

/// The mean squared errors of the predictions for winners and losers, `[N]` each.
fn errors(model: &AlignedModel, batch: &DpoBatch) -> Result<[Tensor; 2]> {
    let pipeline = &model.policy.pipeline;
    let prompts: Vec<&str> = batch.prompts.iter().map(String::as_str).collect();
    let twice = [&prompts[..], &prompts[..]].concat();
    let conditions = pipeline.policy_conditions(&twice, 1.0)?;
    let DpoBatch { clean, noise, timestep, level, .. } = batch;
    let noisy = pipeline.policy_noised(clean, noise, level);
    let prediction = pipeline.policy_prediction(&noisy, (timestep, level), &conditions)?;
    let errors = (prediction - pipeline.policy_target(clean, noise)).square();
    let errors = errors.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
    let pairs = prompts.len() as i64;
    Ok([errors.narrow(0, 0, pairs), errors.narrow(0, pairs, pairs)])
}

/// The pairs `items` on the device of `model`.
fn collate(model: &AlignedModel, levels: &TrainingLevels, items: Vec<DpoItem>) -> Result<DpoBatch> {
    let pipeline = &model.policy.pipeline;
    let winners = items.iter().map(|item| &item.winner);
    let images: Vec<_> = winners.chain(items.iter().map(|item| &item.loser)).collect();
    let seeds: Vec<u64> = items.iter().map(|item| item.seed).collect();
    let mut noise = ImageNoise::new(&seeds);
    let drawn = upload(&noise.draw(&pipeline.sample_shape())?, pipeline.device());
    let clean = pipeline.encode_pictures(&images, &mut noise)?;
    let (timesteps, shares): (Vec<f32>, Vec<f32>) =
        items.iter().map(|item| levels.at(item.level)).map(|(t, level)| (t as f32, level as f32)).unzip();
    let twice = |numbers: Vec<f32>| upload(&Tensor::from_slice(&numbers).repeat([2]), pipeline.device());
    Ok(DpoBatch {
        prompts: items.into_iter().map(|item| item.prompt).collect(),
        clean,
        noise: drawn.repeat([2, 1, 1, 1]),
        timestep: twice(timesteps),
        level: twice(shares),
    })
}

impl Task for DpoTask {
    const NAME: &'static str = "dpo";
    const SUPPORTS: Supports = Supports { layer_decay: false, gradient_checkpointing: true };
    type Config = DpoRunConfig;
    type Item = DpoItem;
    type Batch = DpoBatch;
    type Model = AlignedModel;

    fn new(config: &DpoRunConfig, context: &TaskContext) -> mm_train::Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        self.model.policy.variables()
    }

    fn frozen(&self) -> Option<&VarStore> {
        self.model.policy.frozen()
    }

    fn preprocess(&self) -> Map<DpoItem> {
        item::map(self.model.policy.pipeline.image_side(), self.config.data.background)
    }

    fn collate(&self, items: Vec<DpoItem>) -> mm_train::Result<DpoBatch> {
        Ok(collate(&self.model, &self.levels, items)?)
    }

    fn loss(&self, _: &DpoBatch) -> mm_train::Result<Loss> {
        unreachable!("`backward` computes the errors of the initial model under an autocast of their own")
    }

    fn backward(&self, batch: &DpoBatch, micro_batch: &MicroBatch) -> mm_train::Result<Loss> {
        self.model.policy.set_training(true);
        Ok(self.run_backward(batch, micro_batch)?)
    }

    fn after_step(&mut self) {
        self.model.policy.set_training(false);
    }

    fn stops_after(&mut self, evaluations: &[Evaluation]) -> Option<String> {
        self.guard.observe(evaluations, self.config.guard.patience)
    }

    fn has_weight_decay(&self, name: &str) -> bool {
        self.model.policy.has_weight_decay(name)
    }

    fn hidden_matrices(&self, name: &str) -> usize {
        self.model.policy.hidden_matrices(name)
    }

    fn model(&self) -> &AlignedModel {
        &self.model
    }

    fn save_model(&self, folder: &Path) -> mm_train::Result<()> {
        Ok(self.model.policy.save_model(folder).map_err(Error::from)?)
    }

    fn describe_checkpoint(&self, folder: &Path) -> mm_train::Result<()> {
        self.model.policy.describe_checkpoint(folder).map_err(Error::from)?;
        Ok(write_json(&folder.join(STATE_FILE), &self.guard)?)
    }

    fn open_model(name: &str, options: &OpenOptions) -> mm_train::Result<AlignedModel> {
        Ok(AlignedModel::open(name, options)?)
    }

    fn evaluate(
        model: &AlignedModel,
        config: &DpoRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> mm_train::Result<Evaluation> {
        Ok(evaluate_pairs(model, config, set, context)?)
    }

    fn describe_batch(&self, batch: &DpoBatch) -> String {
        format!("winners and losers {:?}", batch.clean.size())
    }
}

/// The share of the pairs of `set` on which the policy is better at the winner, by more than the initial
/// model is; with rewards also images of the prompts.
fn evaluate_pairs(
    model: &AlignedModel,
    config: &DpoRunConfig,
    set: &EvalSet,
    context: &EvalContext,
) -> Result<Evaluation> {
    let comparison = config.comparison();
    let baseline = model.baseline(&comparison)?;
    // A set of prompts has no pairs to measure.
    if set.sample(0).is_ok_and(|sample| sample.images.len() != 2) {
        return evaluate(model, &comparison, set, context);
    }
    let levels = levels(config, model)?;
    let preprocess = item::map(model.policy.pipeline.image_side(), config.data.background);
    let mut own: Vec<f64> = Vec::new();
    let read = set.for_each_batch(context, preprocess, |items, _| {
        let batch = collate(model, &levels, items)?;
        let both = || tch::no_grad(|| errors(model, &batch));
        let ([winner, loser], [first, second]) = (both()?, baseline.reference.in_place(both)?);
        let beta = config.dpo.halved_beta();
        let (_, accuracy) = diffusion_dpo_loss(&winner, &loser, &first, &second, beta);
        own.extend(Vec::<f64>::try_from(accuracy.to_kind(Kind::Double)).map_err(Error::from)?);
        Ok(())
    })?;
    let all = gather(context.group, &own)?;
    let accuracy = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let mut evaluation = match config.reward.is_empty() {
        true => {
            Evaluation { set: set.name.clone(), credit: set.credit().to_owned(), ..Evaluation::default() }
        }
        false => evaluate(model, &comparison, set, context)?,
    };
    evaluation.samples = all.len();
    evaluation.bad_samples = read.bad.len();
    evaluation.metrics.insert(0, Metric::headline("implicit_accuracy", accuracy));
    Ok(evaluation)
}
