//! The policy with what it is compared with and rated by.

use super::evaluate::Made;
use super::{Comparison, page};
use crate::{Error, Result, RewardConfig, RewardSum};
use mm_core::OpenOptions;
use mm_core::lora::LoraConfig;
use mm_diffusion::TrainablePipeline;
use mm_train::{TaskContext, WeightCopy};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The policy of a run, or its finished model.
pub struct AlignedModel {
    pub(crate) policy: TrainablePipeline,
    /// Opened with a run, and by the first evaluation of a finished model.
    baseline: OnceCell<Baseline>,
}

/// What a policy is compared with and rated by.
pub(crate) struct Baseline {
    /// The initial values of the variables that train.
    pub reference: WeightCopy,
    rewards: Option<RewardSum>,
    /// The rewards that are watched.
    pub guards: Option<RewardSum>,
    /// The images of the initial model by evaluation set: they do not change.
    images: RefCell<BTreeMap<String, Rc<Vec<Made>>>>,
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
        let baseline = Baseline::open(comparison, WeightCopy::new(policy.variables()))?;
        Ok(Self { policy, baseline: OnceCell::from(baseline) })
    }

    /// A finished model.
    ///
    /// # Errors
    /// As [`mm_diffusion::DiffusionPipeline::open`].
    pub(crate) fn open(name: &str, options: &OpenOptions) -> Result<Self> {
        let policy = TrainablePipeline::for_inference(name, &options.device)?;
        Ok(Self { policy, baseline: OnceCell::new() })
    }

    /// What the model is compared with and rated by.
    ///
    /// # Errors
    /// The initial pipeline is of another architecture, or it or a reward cannot be opened.
    pub(crate) fn baseline(&self, comparison: &Comparison) -> Result<&Baseline> {
        if let Some(baseline) = self.baseline.get() {
            return Ok(baseline);
        }
        let from = comparison.from;
        let initial = TrainablePipeline::for_inference(from, comparison.device)?;
        let reference = WeightCopy::with_values(self.policy.variables(), initial.variables());
        let reference = reference.map_err(|problem| {
            Error::Config(format!("model.from: {from} is of another architecture than the model: {problem}"))
        })?;
        let baseline = Baseline::open(comparison, reference)?;
        Ok(self.baseline.get_or_init(|| baseline))
    }

    /// As [`AlignedModel::baseline`], of a run, which has opened it.
    pub(crate) fn baseline_of_run(&self) -> &Baseline {
        self.baseline.get().expect("a run has opened it")
    }
}

impl Baseline {
    fn open(comparison: &Comparison, reference: WeightCopy) -> Result<Self> {
        let open = |rewards: &[RewardConfig]| {
            (!rewards.is_empty()).then(|| RewardSum::open(rewards, comparison.device)).transpose()
        };
        let (rewards, guards) = (open(comparison.reward)?, open(&comparison.guard.reward)?);
        Ok(Self { reference, rewards, guards, images: RefCell::default() })
    }

    /// The rewards that are raised.
    ///
    /// # Errors
    /// The config names none.
    pub fn rewards(&self) -> Result<&RewardSum> {
        let missing = || Error::Config("there is no reward: add a [[reward]] table".to_owned());
        self.rewards.as_ref().ok_or_else(missing)
    }

    /// The images of the initial model for the set `name`, which `make` makes with its weights in place.
    ///
    /// # Errors
    /// As `make`.
    pub fn images(&self, name: &str, make: impl FnOnce() -> Result<Vec<Made>>) -> Result<Rc<Vec<Made>>> {
        if let Some(made) = self.images.borrow().get(name) {
            return Ok(Rc::clone(made));
        }
        let mut made = self.reference.in_place(make)?;
        // Of the others the scores alone are needed again.
        made.iter_mut().skip(page::SHOWN).for_each(|made| made.pictures.clear());
        let made = Rc::new(made);
        self.images.borrow_mut().insert(name.to_owned(), Rc::clone(&made));
        Ok(made)
    }
}
