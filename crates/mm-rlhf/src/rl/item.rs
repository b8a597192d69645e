//! Prompts as the loader gives them, and what a training step works on.

use super::rollout::{RolloutSummary, Samples};
use mm_data::{Fault, Map, Sample, SampleRng};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::rc::Rc;
use std::sync::Arc;

/// A prompt with the seed of its draw, from which all noise for it derives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PromptItem {
    pub(super) seed: u64,
    pub(super) prompt: String,
}

impl mm_data::Item for PromptItem {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.prompt.len()
    }
}

/// A micro-batch.
pub enum RlBatch {
    /// Images of a roll-out.
    Rollout {
        /// The images.
        samples: Rc<Samples>,
        /// The pass over the roll-out, counted over the run: it decides the noise of forward processes.
        pass: u64,
        /// Whether the policy is still the one that made them.
        is_on_policy: bool,
        /// The roll-out in numbers.
        summary: RolloutSummary,
    },
    /// Prompts, for methods that follow the reward's own gradient.
    Prompts(Vec<PromptItem>),
}

/// The first caption of a sample, the canonical one, with the seed of the draw.
pub(super) fn map() -> Map<PromptItem> {
    Arc::new(|sample: &Sample, rng: &mut SampleRng| {
        let missing = || mm_data::Error::bad(Fault::NoCaption, "no prompt");
        let prompt = sample.captions.first().cloned().ok_or_else(missing)?;
        Ok(PromptItem { seed: rng.random(), prompt })
    })
}
