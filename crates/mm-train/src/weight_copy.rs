//! Copies of weights that can take their place.

use mm_core::checkpoint::{self, TensorLayout, Weights};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;
use tch::nn::VarStore;

/// A second set of values for the variables of a model: averages of its weights, an earlier policy, the
/// reference of a KL term.
#[derive(Debug)]
pub struct WeightCopy {
    /// Name, variable, copy.
    entries: Vec<(String, Tensor, Tensor)>,
}

impl WeightCopy {
    /// Copies every variable of `vs`, buffers included.
    pub fn new(vs: &VarStore) -> Self {
        let variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
        let entries = variables.into_iter().map(|(name, variable)| {
            let copy = variable.detach().copy();
            (name, variable.detach(), copy)
        });
        Self { entries: entries.collect() }
    }

    /// The variables of `vs` with the values of `other`, a store of the same variables, as copies.
    ///
    /// # Errors
    /// `other` has other variables, or one of another shape: names the first.
    pub fn with_values(vs: &VarStore, other: &VarStore) -> Result<Self, String> {
        let made = Self::new(vs);
        let mut values = other.variables();
        for (name, _, copy) in &made.entries {
            let value = values.remove(name).ok_or_else(|| format!("{name} is missing"))?;
            if value.size() != copy.size() {
                return Err(format!("{name} is {:?} instead of {:?}", value.size(), copy.size()));
            }
            tch::no_grad(|| copy.shallow_clone().copy_(&value));
        }
        match values.keys().min() {
            Some(name) => Err(format!("{name} has no counterpart")),
            None => Ok(made),
        }
    }

    /// Moves the copies toward the variables by `share` of the way, from 0 to 1.
    pub fn move_toward_variables(&mut self, share: f64) {
        tch::no_grad(|| {
            for (_, variable, copy) in &mut self.entries {
                let _ = copy.lerp_(variable, share);
            }
        });
    }

    /// Exchanges variables and copies; done twice, nothing has changed.
    pub fn swap(&self) {
        tch::no_grad(|| {
            for (_, variable, copy) in &self.entries {
                let held = variable.copy();
                variable.shallow_clone().copy_(copy);
                copy.shallow_clone().copy_(&held);
            }
        });
    }

    /// Runs `body` with the copies in place of the variables, whose gradients it must not need. Autocast
    /// keeps narrowed weights until it ends, so that one which `body` is to run under begins in `body`.
    pub fn in_place<R>(&self, body: impl FnOnce() -> R) -> R {
        self.swap();
        let result = body();
        self.swap();
        result
    }

    /// Runs `body` with the variables at `scale` of the way from the copies to themselves: 0 is the copies, 1
    /// the variables, and more lies beyond them. The variables are afterwards as before.
    pub fn scaled<R>(&self, scale: f64, body: impl FnOnce() -> R) -> R {
        let held: Vec<Tensor> = tch::no_grad(|| {
            let hold = |(_, variable, copy): &(String, Tensor, Tensor)| {
                let held = variable.copy();
                // Buffers of integers have nothing between.
                if variable.is_floating_point() {
                    variable.shallow_clone().copy_(&(copy + (&held - copy) * scale));
                }
                held
            };
            self.entries.iter().map(hold).collect()
        });
        let result = body();
        tch::no_grad(|| {
            for ((_, variable, _), held) in self.entries.iter().zip(&held) {
                variable.shallow_clone().copy_(held);
            }
        });
        result
    }

    /// Writes the copies.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> mm_core::Result<()> {
        let copies: Vec<_> =
            self.entries.iter().map(|(name, _, copy)| (name.clone(), copy.shallow_clone())).collect();
        checkpoint::write(file, &copies)
    }

    /// Loads copies that [`WeightCopy::save`] wrote.
    ///
    /// # Errors
    /// They are of another model.
    pub fn load(&mut self, copies: &Weights) -> mm_core::Result<()> {
        let targets = self.entries.iter().map(|(name, _, copy)| (name.clone(), copy.shallow_clone()));
        copies.fill_any(targets.collect(), &TensorLayout::AS_IS)
    }
}
