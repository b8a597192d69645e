//! Proximal policy optimization of a captioner: Schulman et al. 2017, as language models learn from
//! preferences (Ziegler et al. 2019; Ouyang et al. 2022).
//!
//! A roll-out draws captions of a batch of images and computes their rewards; then the policy takes several
//! optimizer steps on it. The policy reads images as in inference, with the running statistics of batch
//! norms, so that two passes with the same weights give the same probabilities.

mod loss;
mod rollout;
mod value_head;

pub(crate) use rollout::Experience;
pub(crate) use value_head::is_of_value_head;

use crate::batch::{CaptionBatch, CaptionItem};
use crate::folder::CaptionerFolder;
use crate::rewards::{Rewards, drawn_tokens, sampling};
use crate::{CaptionPipeline, CaptionRunConfig, Captioner, Error, PpoConfig, Result};
use loss::TokenLosses;
use mm_core::loss::kl_estimate;
use mm_core::{Precision, upload};
use mm_dist::{ProcessGroup, ReduceOp};
use mm_text::decoder::NextTokens;
use mm_text::generate::Prompt;
use mm_train::{Loss, TaskContext, agree};
use rollout::{Drawn, Rollout};
use tch::nn::VarStore;
use tch::{Kind, Tensor};
use value_head::ValueHead;

/// The largest distance of a ratio from 1 before the first update of a roll-out.
const RATIO_TOLERANCE: f64 = 1e-4;

/// Proximal policy optimization with its rewards.
pub(crate) struct Ppo {
    config: PpoConfig,
    rewards: Rewards,
    value_head: ValueHead,
    /// The trained variables of the captioner and those of the value head.
    variables: VarStore,
    /// The initial captioner.
    reference: Captioner,
    group: ProcessGroup,
    rollout: Rollout,
}

/// The outputs of a captioner for N drawn tokens.
struct TokenOutputs {
    /// The log-probabilities of all tokens in their places, `[N, vocab]`, f32.
    distribution: Tensor,
    /// Those of the drawn tokens, `[N]`.
    log_probs: Tensor,
    /// The decoder's outputs that they are predicted from, `[N, D]`.
    outputs: Tensor,
}

impl Ppo {
    /// Opens the initial captioner of `run` again, adds a value head to the `trained` variables, and counts
    /// the n-grams of the training set for CIDEr-D.
    ///
    /// # Errors
    /// The captioner cannot be opened, the training set is a stream, or the minibatches do not divide the
    /// images of each process.
    pub fn new(
        config: &PpoConfig,
        run: &CaptionRunConfig,
        context: &TaskContext,
        trained: &VarStore,
    ) -> Result<Self> {
        let images = run.train.batch_size / context.group.world();
        if !images.is_multiple_of(config.minibatches) {
            return Err(Error::Model(format!(
                "ppo.minibatches = {} does not divide the {images} images of each of {} processes: make \
                 train.batch_size a multiple of {}",
                config.minibatches,
                context.group.world(),
                config.minibatches * context.group.world()
            )));
        }
        let missing = || Error::Model("[ppo] needs `model.from`, the captioner to start from".to_owned());
        let folder = CaptionerFolder::open(run.model.from.as_deref().ok_or_else(missing)?)?;
        let mut frozen = VarStore::new(context.device);
        let reference = folder.build(&frozen)?;
        frozen.freeze();
        let (value_head, variables) = ValueHead::beside(trained, folder.description.model.decoder.width());
        Ok(Self {
            config: config.clone(),
            rewards: Rewards::new(config.weights(), run.input.references, context)?,
            value_head,
            variables,
            reference,
            group: context.group.clone(),
            rollout: Rollout::default(),
        })
    }

    pub fn rewards(&self) -> &Rewards {
        &self.rewards
    }

    /// The trained variables, those of the value head among them.
    pub fn variables(&self) -> &VarStore {
        &self.variables
    }

    /// Whether no roll-out is under way.
    pub fn is_between_rollouts(&self) -> bool {
        self.rollout.is_done()
    }

    /// Forgets the roll-out.
    pub fn restart(&mut self) {
        self.rollout = Rollout::default();
    }

    /// The next minibatch of the roll-out; once it is done, of a new one with the images that `read` gives.
    /// Captions begin with `prompt`, and are drawn in the `precision` of the loss, so that the first ratio is
    /// that of one model with itself. All processes take part.
    ///
    /// # Errors
    /// `read` fails, captions cannot be generated or decoded, or another process fails or is lost.
    pub fn next_batch(
        &mut self,
        pipeline: &CaptionPipeline,
        prompt: &[u32],
        precision: Precision,
        read: impl FnOnce() -> mm_train::Result<Vec<CaptionItem>>,
    ) -> mm_train::Result<CaptionBatch> {
        if self.rollout.is_done() {
            let draw = |items| precision.autocast(pipeline.device, || self.draw(pipeline, prompt, items));
            let drawn = read().and_then(|items| Ok(draw(items)?));
            let drawn = agree(&self.group, drawn)?;
            let rewards: Vec<_> = drawn.iter().flat_map(|drawn| &drawn.rewards).cloned().collect();
            let means = self.rewards.means(&rewards);
            self.rollout = Rollout::new(drawn, means, &self.config, &self.group, pipeline.device)?;
        }
        self.rollout.take().ok_or_else(|| Error::Model("a roll-out has no images".to_owned()).into())
    }

    /// Draws captions of the images of each minibatch.
    fn draw(
        &self,
        pipeline: &CaptionPipeline,
        prompt: &[u32],
        items: Vec<CaptionItem>,
    ) -> Result<Vec<Drawn>> {
        let count = self.config.minibatches;
        let mut parts: Vec<Vec<CaptionItem>> = (0..count).map(|_| Vec::new()).collect();
        // Each process has a run of images: in strides, a minibatch has the same images of all processes as
        // of one alone.
        for (place, item) in items.into_iter().enumerate() {
            parts[place % count].push(item);
        }
        let draw = |items| tch::no_grad(|| self.draw_minibatch(pipeline, prompt, items));
        parts.into_iter().map(draw).collect()
    }

    fn draw_minibatch(
        &self,
        pipeline: &CaptionPipeline,
        prompt: &[u32],
        items: Vec<CaptionItem>,
    ) -> Result<Drawn> {
        let (mut images, mut prompts, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            images.push(item.image);
            prompts.push(Prompt { tokens: prompt.to_vec(), seed: item.seed });
            targets.extend(item.target);
        }
        let pixel_values = upload(&pipeline.processor.normalize_batch(&images)?, pipeline.device);
        let states = pipeline.captioner.encode(&pixel_values, false);
        let sampling = sampling(self.config.samples, self.config.max_new_tokens);
        let captions = pipeline.generate(&states, &prompts, &sampling)?;
        let next = drawn_tokens(pipeline, &prompts, &captions);
        let policy = TokenOutputs::new(&pipeline.captioner, &states, &next);
        let states = self.reference.encode(&pixel_values, false);
        let rewards = self.rewards.of(pipeline, &captions, &targets)?;
        Ok(Drawn {
            totals: self.rewards.totals(&rewards),
            rewards,
            reference: TokenOutputs::new(&self.reference, &states, &next).log_probs,
            values: self.value_head.forward(&policy.outputs),
            log_probs: policy.log_probs,
            pixel_values,
            next,
        })
    }

    /// The loss of a minibatch of [`Ppo::next_batch`]: the clipped losses of policy and values, averaged
    /// over the tokens of all processes.
    ///
    /// # Errors
    /// `batch` is of no roll-out, the ratio of new to old probabilities is not 1 before the first update, or
    /// another process is lost.
    pub fn loss(&self, captioner: &Captioner, batch: &CaptionBatch) -> Result<Loss> {
        let no_rollout = || Error::Model("the batch has no drawn captions".to_owned());
        let experience = batch.experience.as_deref().ok_or_else(no_rollout)?;
        let states = captioner.encode(&batch.pixel_values, false);
        let policy = TokenOutputs::new(captioner, &states, &batch.next);
        let values = self.value_head.forward(&policy.outputs);
        let losses = TokenLosses::new(&policy.log_probs, &values, experience, &self.config);
        if self.rollout.is_at_first() {
            self.check_ratio(&losses.policy.ratio)?;
        }
        let mean = |of_tokens: &Tensor| of_tokens.sum(Kind::Float) * experience.scale;
        let total = mean(&losses.total(&self.config));
        let parts = tch::no_grad(|| {
            let entropy = policy.distribution.exp() * &policy.distribution;
            let entropy = -entropy.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
            [
                ("kl", mean(&kl_estimate(&policy.log_probs, &experience.reference))),
                ("ratio", mean(&losses.policy.ratio)),
                ("clipped", mean(&losses.policy.is_clipped)),
                ("value_loss", mean(&losses.value)),
                ("entropy", mean(&entropy)),
            ]
        });
        let numbers = self.rollout.numbers.iter().map(|&(name, number)| (name, Tensor::from(number)));
        Ok(Loss { total, parts: numbers.chain(parts).collect() })
    }

    /// Checks that no update lies between the draws and this loss. All processes take part, so that all stop.
    fn check_ratio(&self, ratio: &Tensor) -> Result<()> {
        let distance = (ratio - 1.0).abs().max().double_value(&[]);
        let distance = if distance.is_nan() { f64::INFINITY } else { distance };
        let distance = self.group.reduce(&[distance], ReduceOp::Max)?[0];
        if distance <= RATIO_TOLERANCE {
            return Ok(());
        }
        Err(Error::Model(format!(
            "before the first update of a roll-out the ratio of new to old probabilities is off from 1 by \
             {distance:.1e}, above {RATIO_TOLERANCE:e}: two passes over the same captions with the same \
             weights differ, so that the loss would be wrong; look for weights that are not finite, or for a \
             layer that draws random numbers"
        )))
    }
}

impl TokenOutputs {
    /// The outputs of `captioner` for the tokens that `next` has labels for, after the images `states`.
    fn new(captioner: &Captioner, states: &Tensor, next: &NextTokens) -> Self {
        let outputs = next.select(&captioner.outputs(states, &next.input_ids));
        let distribution = captioner.decoder().logits(&outputs).to_kind(Kind::Float).log_softmax(-1, None);
        let log_probs = distribution.gather(1, &next.labels.unsqueeze(-1), false).squeeze_dim(-1);
        Self { distribution, log_probs, outputs }
    }
}
