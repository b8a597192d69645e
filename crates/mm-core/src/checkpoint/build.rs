//! Models built without values and then filled from weights.

use super::{TensorLayout, Weights};
use crate::Error;
use crate::nn::{shapes_only, uninitialized};
use tch::nn::{Path, VarStore};
use tch::{Device, Tensor};

/// The names and shapes of the variables that `make` creates: tensors without memory, however large a config
/// makes them.
///
/// # Errors
/// As `make`.
pub fn variable_shapes<T, E>(make: impl FnOnce(&Path) -> Result<T, E>) -> Result<Vec<(String, Tensor)>, E> {
    let vs = VarStore::new(Device::Cpu);
    shapes_only(|| make(&vs.root()))?;
    Ok(vs.variables().into_iter().collect())
}

impl Weights {
    /// Makes a model on `vs` and fills it: strictly, every variable of `vs` is filled and every tensor used.
    /// `make` runs twice, first for shapes alone, so that a config that does not fit the weights is refused
    /// before it takes memory.
    ///
    /// # Errors
    /// As `make`, [`Weights::check`] and [`Weights::fill`].
    pub fn build<T, E: From<Error>>(
        &self,
        vs: &VarStore,
        layout: &TensorLayout,
        make: impl Fn(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        self.check(variable_shapes(&make)?, layout)?;
        let model = uninitialized(|| make(&vs.root()))?;
        self.fill(vs.variables().into_iter().collect(), layout)?;
        Ok(model)
    }
}
