//! The policy with what it is compared with and rated by.

use super::Comparison;
use crate::{Error, Result, RewardConfig, RewardSum};
use mm_core::OpenOptions;
use mm_core::lora::LoraConfig;
use mm_diffusion::TrainablePipeline;
use mm_train::{TaskContext, WeightCopy};

/// The policy of a run, or its finished model.
pub struct AlignedModel {
    pub(crate) policy: TrainablePipeline,
    /// What a run holds for all of its evaluations; a finished model's are opened by each.
    held: Option<Held>,
}

/// The initial weights and the rewards.
pub(crate) struct Held {
    /// The initial values of the variables that train.
    pub reference: WeightCopy,
    /// The rewards that are raised; none where preferences are learned from, and nothing else is measured.
    rewards: Option<RewardSum>,
    /// Those that are watched.
    pub guards: Option<RewardSum>,
}

impl AlignedModel {
    /// The policy of a new run.
    ///
    /// # Errors
    /// The pipeline or a reward cannot be opened, or the pipeline is only in the run's own checkpoint, which
    /// has not the initial weights.
    pub(crate) fn new(
        comparison: &Comparison,
        lora: Option<&LoraConfig>,
        context: &TaskContext,
    ) -> Result<Self> {
        let from = comparison.from;
        mm_core::hub::resolve(from)?; // Not the checkpoint in its place: it has not the initial weights.
        let policy = TrainablePipeline::open(from, lora, comparison.gradient_checkpointing, context)?;
        let held = Held::open(comparison, WeightCopy::new(policy.variables()))?;
        Ok(Self { policy, held: Some(held) })
    }

    /// A finished model.
    ///
    /// # Errors
    /// As [`mm_diffusion::DiffusionPipeline::open`].
    pub(crate) fn open(name: &str, options: &OpenOptions) -> Result<Self> {
        Ok(Self { policy: TrainablePipeline::for_inference(name, &options.device)?, held: None })
    }

    /// What the model is compared with and rated by.
    ///
    /// # Errors
    /// The initial pipeline is of another architecture, or it or a reward cannot be opened.
    pub(crate) fn held(&self, comparison: &Comparison) -> Result<HeldRef<'_>> {
        if let Some(held) = &self.held {
            return Ok(HeldRef::Run(held));
        }
        let from = comparison.from;
        let initial = TrainablePipeline::for_inference(from, comparison.device)?;
        let reference = WeightCopy::with_values(self.policy.variables(), initial.variables());
        let reference = reference.map_err(|problem| {
            Error::Config(format!("model.from: {from} is of another architecture than the model: {problem}"))
        })?;
        Ok(HeldRef::Opened(Box::new(Held::open(comparison, reference)?)))
    }

    /// As [`AlignedModel::held`], of a run.
    pub(crate) fn held_by_run(&self) -> &Held {
        self.held.as_ref().expect("a run has opened them")
    }
}

impl Held {
    fn open(comparison: &Comparison, reference: WeightCopy) -> Result<Self> {
        let open = |rewards: &[RewardConfig]| {
            (!rewards.is_empty()).then(|| RewardSum::open(rewards, comparison.device)).transpose()
        };
        Ok(Self { reference, rewards: open(comparison.reward)?, guards: open(&comparison.guard.reward)? })
    }

    /// The rewards that are raised.
    ///
    /// # Errors
    /// The config names none.
    pub fn rewards(&self) -> Result<&RewardSum> {
        let missing = || Error::Config("there is no reward: add a [[reward]] table".to_owned());
        self.rewards.as_ref().ok_or_else(missing)
    }
}

/// What a run holds, or what an evaluation has opened.
pub(crate) enum HeldRef<'a> {
    Run(&'a Held),
    Opened(Box<Held>),
}

impl std::ops::Deref for HeldRef<'_> {
    type Target = Held;

    fn deref(&self) -> &Held {
        match self {
            Self::Run(held) => held,
            Self::Opened(held) => held,
        }
    }
}
