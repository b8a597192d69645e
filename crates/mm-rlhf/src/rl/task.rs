//! The training task.

use super::config::{RlMethod, RlRunConfig};
use super::forward_process::ForwardProcess;
use super::item::{self, PromptItem, RlBatch};
use super::policy_gradient::{PolicyGradient, StepPlan};
use super::reward_gradient::RewardGradient;
use super::rollout::{Rollout, RolloutMaker, RolloutSummary};
use crate::compare::{AlignedModel, GuardState, evaluate};
use crate::policy::{PromptStatistics, nft_decay};
use crate::{Error, Result};
use mm_core::checkpoint::Weights;
use mm_core::{OpenOptions, Precision, write_json};
use mm_data::Map;
use mm_dist::ProcessGroup;
use mm_train::{
    EvalContext, EvalSet, Evaluation, Loss, MicroBatch, Supports, Task, TaskContext, TrainingData,
    WeightCopy, agree, gather,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// The files of a checkpoint that hold what the weights do not.
const STATE_FILE: &str = "rl_state.json";
const OLD_POLICY_FILE: &str = "old_policy.safetensors";

/// Moves a diffusion model toward a reward.
pub struct RlTask {
    model: AlignedModel,
    config: RlRunConfig,
    group: ProcessGroup,
    /// The policy that makes the images, of NFT.
    old: Option<WeightCopy>,
    rollout: Option<Rollout>,
    state: RlState,
}

/// What a checkpoint holds beside weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RlState {
    /// Roll-outs that were begun.
    rollouts: u64,
    /// Of DDPO.
    statistics: Option<PromptStatistics>,
    guard: GuardState,
}

impl RlTask {
    fn build(config: &RlRunConfig, context: &TaskContext) -> Result<Self> {
        mm_core::seed::set(config.run.seed, "init", 0);
        let model = AlignedModel::new(&config.comparison(), config.lora.as_ref(), context)?;
        if config.rl.method.is_reward_gradient() {
            model.baseline_of_run().rewards()?.check_differentiable()?;
        }
        check_ranks(config, context.group)?;
        if config.rl.method.is_policy_gradient() {
            // Checks the noise of steps before any is made.
            StepPlan::new(&config.rl, &model.policy.pipeline, config.run.seed, 0)?;
        }
        let mut old = (config.rl.method == RlMethod::Nft).then(|| WeightCopy::new(model.policy.variables()));
        let mut state = RlState::new(config);
        if let Some(checkpoint) = context.checkpoint {
            state = mm_core::read_json(&checkpoint.join(STATE_FILE))?;
            if let Some(old) = &mut old {
                old.load(&Weights::open(&checkpoint.join(OLD_POLICY_FILE))?)?;
            }
        }
        Ok(Self { model, config: config.clone(), group: context.group.clone(), old, rollout: None, state })
    }

    /// The next roll-out, of prompts that all processes read together.
    fn roll_out(&mut self, data: &mut TrainingData<PromptItem>, precision: Precision) -> Result<Rollout> {
        let own = agree(&self.group, data.next_batch())?;
        let mut prompts = gather(&self.group, &own)?;
        // Whichever process read a prompt.
        prompts.sort_unstable();
        let RlRunConfig { rl, train, run, .. } = &self.config;
        let (number, device) = (self.state.rollouts, self.model.policy.pipeline.device());
        let maker = RolloutMaker {
            pipeline: &self.model.policy.pipeline,
            rewards: self.model.baseline_of_run().rewards()?,
            config: rl,
            group: &self.group,
            seed: run.seed,
            number,
            micro_batch: train.micro_batch_size(),
        };
        let statistics = self.state.statistics.as_mut();
        let make = || precision.autocast(device, || maker.make(&prompts, statistics));
        let rollout = match &self.old {
            Some(old) => old.in_place(make),
            None => make(),
        }?;
        if number == 0 {
            check_first(&rollout.summary, &self.group)?;
        }
        // Not before: a checkpoint of a failed roll-out makes the same one again.
        self.state.rollouts += 1;
        Ok(rollout)
    }

    /// The initial weights, where the distance from them counts.
    fn reference(&self) -> Option<&WeightCopy> {
        (self.config.rl.kl_coefficient > 0.0).then(|| &self.model.baseline_of_run().reference)
    }

    fn run_backward(&self, batch: &RlBatch, micro_batch: &MicroBatch) -> Result<Loss> {
        let (pipeline, config) = (&self.model.policy.pipeline, &self.config.rl);
        let reference = self.reference();
        match batch {
            RlBatch::Prompts(prompts) => {
                let rewards = self.model.baseline_of_run().rewards()?;
                RewardGradient { pipeline, config, rewards }.backward(prompts, micro_batch)
            }
            RlBatch::Rollout { samples, pass, is_on_policy, summary } => {
                let mut loss = match config.method.is_policy_gradient() {
                    true => PolicyGradient { pipeline, config, reference }.backward(
                        samples,
                        *is_on_policy,
                        micro_batch,
                    )?,
                    false => {
                        let old = self.old.as_ref();
                        ForwardProcess { pipeline, config, old, reference }.backward(
                            samples,
                            *pass,
                            micro_batch,
                        )?
                    }
                };
                let RolloutSummary { reward, reward_std, groups_without_variance } = *summary;
                loss.parts.extend([
                    ("reward", Tensor::from(reward)),
                    ("reward_std", Tensor::from(reward_std)),
                    ("groups_without_variance", Tensor::from(groups_without_variance)),
                ]);
                Ok(loss)
            }
        }
    }
}

impl RlState {
    fn new(config: &RlRunConfig) -> Self {
        let statistics = (config.rl.method == RlMethod::Ddpo).then(|| {
            let [kept, least] = config.rl.policy_gradient.statistics;
            PromptStatistics::new(kept, least)
        });
        Self { rollouts: 0, statistics, guard: GuardState::default() }
    }
}

/// # Errors
/// The prompts of a roll-out cannot be shared by the processes of `group`.
fn check_ranks(config: &RlRunConfig, group: &ProcessGroup) -> Result<()> {
    let (prompts, world) = (config.rl.prompts, group.world());
    if config.rl.method.is_reward_gradient() || prompts.is_multiple_of(world) {
        return Ok(());
    }
    Err(Error::Config(format!("rl.prompts: {prompts} prompts are not divided by {world} processes")))
}

/// Reports the first roll-out, before any training.
///
/// # Errors
/// All groups have equal rewards: nothing can be learned from them.
fn check_first(summary: &RolloutSummary, group: &ProcessGroup) -> Result<()> {
    let RolloutSummary { reward, reward_std, groups_without_variance } = *summary;
    if group.is_main() {
        tracing::info!(
            "before training: reward {reward:.4} (sd {reward_std:.4}), {:.0} % of prompts without variance",
            100.0 * groups_without_variance
        );
    }
    if reward_std > 0.0 {
        return Ok(());
    }
    Err(Error::Request(format!(
        "all images of the first roll-out have the reward {reward}: nothing can be learned from it. Start \
         from a better model, take more steps or another noise, or a reward with partial credit"
    )))
}

impl Task for RlTask {
    const NAME: &'static str = "rl";
    const SUPPORTS: Supports = Supports { layer_decay: false, gradient_checkpointing: true };
    type Config = RlRunConfig;
    type Item = PromptItem;
    type Batch = RlBatch;
    type Model = AlignedModel;

    fn new(config: &RlRunConfig, context: &TaskContext) -> mm_train::Result<Self> {
        Ok(Self::build(config, context)?)
    }

    fn variables(&self) -> &VarStore {
        self.model.policy.variables()
    }

    fn frozen(&self) -> Option<&VarStore> {
        self.model.policy.frozen()
    }

    fn preprocess(&self) -> Map<PromptItem> {
        item::map()
    }

    fn items_per_batch(&self) -> Option<usize> {
        (!self.config.rl.method.is_reward_gradient()).then_some(self.config.rl.prompts)
    }

    fn collate(&self, items: Vec<PromptItem>) -> mm_train::Result<RlBatch> {
        Ok(RlBatch::Prompts(items))
    }

    fn next_batch(
        &mut self,
        data: &mut TrainingData<PromptItem>,
        precision: Precision,
    ) -> mm_train::Result<RlBatch> {
        if self.config.rl.method.is_reward_gradient() {
            return self.collate(data.next_batch()?);
        }
        let accumulate = self.config.train.accumulate;
        if self.rollout.is_none() {
            self.rollout = Some(self.roll_out(data, precision)?);
        }
        let batch = self.rollout.as_mut().and_then(|rollout| rollout.next_batch(accumulate));
        Ok(batch.expect("a roll-out that is used up is dropped after the step"))
    }

    fn loss(&self, _: &RlBatch) -> mm_train::Result<Loss> {
        unreachable!("`backward` takes several backward passes, one a step of the sampler")
    }

    fn backward(&self, batch: &RlBatch, micro_batch: &MicroBatch) -> mm_train::Result<Loss> {
        Ok(self.run_backward(batch, micro_batch)?)
    }

    fn after_step(&mut self) {
        if !self.rollout.as_ref().is_some_and(Rollout::is_used_up) {
            return;
        }
        self.rollout = None;
        if let Some(old) = &mut self.old {
            let nft = &self.config.rl.nft;
            let decay = nft_decay(self.state.rollouts, nft.decay_rate, nft.decay_max);
            old.move_toward_variables(1.0 - decay);
        }
    }

    fn is_resumable(&self) -> bool {
        self.rollout.is_none()
    }

    fn restart(&mut self) {
        self.rollout = None;
        self.state = RlState::new(&self.config);
        if let Some(old) = &mut self.old {
            old.move_toward_variables(1.0);
        }
    }

    fn stops_after(&mut self, evaluations: &[Evaluation]) -> Option<String> {
        self.state.guard.observe(evaluations, self.config.guard.patience)
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
        write_json(&folder.join(STATE_FILE), &self.state)?;
        if let Some(old) = &self.old {
            old.save(&folder.join(OLD_POLICY_FILE))?;
        }
        Ok(())
    }

    fn open_model(name: &str, options: &OpenOptions) -> mm_train::Result<AlignedModel> {
        Ok(AlignedModel::open(name, options)?)
    }

    fn evaluate(
        model: &AlignedModel,
        config: &RlRunConfig,
        set: &EvalSet,
        context: &EvalContext,
    ) -> mm_train::Result<Evaluation> {
        Ok(evaluate(model, &config.comparison(), set, context)?)
    }

    fn describe_batch(&self, batch: &RlBatch) -> String {
        match batch {
            RlBatch::Prompts(prompts) => format!("{} prompts", prompts.len()),
            RlBatch::Rollout { samples, .. } => {
                format!("images {:?}, {} trained steps", samples.clean.size(), samples.steps.len())
            }
        }
    }
}
