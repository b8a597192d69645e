//! Exponential moving averages of weights.

use mm_core::Result;
use mm_core::checkpoint::{self, TensorLayout, Weights};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// Exponential moving averages of the variables (Polyak & Juditsky 1992), which generalize better than the
/// weights of the last step.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    /// Name, variable, average.
    entries: Vec<(String, Tensor, Tensor)>,
}

impl Ema {
    /// Averages every variable of `vs`, buffers included, starting from its value.
    pub fn new(vs: &VarStore, decay: f64) -> Self {
        let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
        let entries = variables.into_iter().map(|(name, variable)| {
            let average = variable.detach().copy();
            (name, variable.detach(), average)
        });
        Self { decay, entries: entries.collect() }
    }

    /// Moves the averages towards the variables after step `step`, counted from 1. Early steps move them
    /// faster, so that the initial weights fade quickly.
    pub fn update(&mut self, step: u64) {
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        tch::no_grad(|| {
            for (_, variable, average) in &mut self.entries {
                let _ = average.lerp_(variable, 1.0 - decay);
            }
        });
    }

    /// Exchanges variables and averages; done twice, nothing has changed.
    pub fn swap(&mut self) {
        tch::no_grad(|| {
            for (_, variable, average) in &mut self.entries {
                let held = variable.copy();
                variable.copy_(average);
                average.copy_(&held);
            }
        });
    }

    /// Writes the averages.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        let averages: Vec<_> =
            self.entries.iter().map(|(name, _, average)| (name.clone(), average.shallow_clone())).collect();
        checkpoint::write(file, &averages)
    }

    /// Loads averages that [`Ema::save`] wrote.
    ///
    /// # Errors
    /// They are of another model.
    pub fn load(&mut self, averages: &Weights) -> Result<()> {
        let targets = self.entries.iter().map(|(name, _, average)| (name.clone(), average.shallow_clone()));
        averages.fill_any(targets.collect(), &TensorLayout::AS_IS)
    }
}
