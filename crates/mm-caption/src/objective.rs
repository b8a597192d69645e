//! The losses of a run with `run.task = "caption"`, of which one is minimized.

use crate::ppo::Ppo;
use crate::rewards::Rewards;
use crate::scst::Scst;
use crate::{CaptionRunConfig, Result};
use mm_train::TaskContext;
use tch::nn::VarStore;

/// The loss that is minimized.
pub(crate) enum Objective {
    /// The cross-entropy of the next token of references.
    TeacherForcing {
        /// As [`LossConfig::label_smoothing`](crate::LossConfig::label_smoothing).
        label_smoothing: f64,
    },
    /// The negative expected reward of drawn captions.
    SelfCritical(Scst),
    /// The clipped losses of captions drawn in roll-outs.
    Ppo(Box<Ppo>),
}

impl Objective {
    /// The objective of `config`, for the `trained` variables of the captioner.
    ///
    /// # Errors
    /// The training set is a stream, whose captions rewards cannot count, or as [`Ppo::new`].
    pub fn new(config: &CaptionRunConfig, context: &TaskContext, trained: &VarStore) -> Result<Self> {
        Ok(match (&config.ppo, &config.scst) {
            (Some(ppo), _) => Self::Ppo(Box::new(Ppo::new(ppo, config, context, trained)?)),
            (None, Some(scst)) => {
                let rewards = Rewards::new(scst.weights(), config.input.references, context)?;
                Self::SelfCritical(Scst::new(scst, rewards))
            }
            (None, None) => Self::TeacherForcing { label_smoothing: config.loss.label_smoothing },
        })
    }

    /// The rewards of drawn captions; none in teacher forcing.
    pub fn rewards(&self) -> Option<&Rewards> {
        match self {
            Self::TeacherForcing { .. } => None,
            Self::SelfCritical(scst) => Some(scst.rewards()),
            Self::Ppo(ppo) => Some(ppo.rewards()),
        }
    }
}
