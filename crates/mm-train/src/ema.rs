//! Exponential moving averages of weights.

use crate::WeightCopy;
use mm_core::Result;
use mm_core::checkpoint::Weights;
use std::path::Path;
use tch::nn::VarStore;

/// Exponential moving averages of the variables (Polyak & Juditsky 1992), which generalize better than the
/// weights of the last step.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    averages: WeightCopy,
}

impl Ema {
    /// Averages every variable of `vs`, buffers included, starting from its value.
    pub fn new(vs: &VarStore, decay: f64) -> Self {
        Self { decay, averages: WeightCopy::new(vs) }
    }

    /// Moves the averages towards the variables after step `step`, counted from 1. Early steps move them
    /// faster, so that the initial weights fade quickly.
    pub fn update(&mut self, step: u64) {
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        self.averages.move_toward_variables(1.0 - decay);
    }

    /// Exchanges variables and averages; done twice, nothing has changed.
    pub fn swap(&mut self) {
        self.averages.swap();
    }

    /// Writes the averages.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        self.averages.save(file)
    }

    /// Loads averages that [`Ema::save`] wrote.
    ///
    /// # Errors
    /// They are of another model.
    pub fn load(&mut self, averages: &Weights) -> Result<()> {
        self.averages.load(averages)
    }
}
