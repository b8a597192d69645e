//! One adapter, and the place for adapters in a linear layer.

use crate::nn::dropout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;

/// The state that all adapters of a model share.
#[derive(Debug, Default)]
pub(super) struct Switches {
    /// Whether dropout is on.
    pub training: AtomicBool,
    /// Whether the weights contain the adapters.
    pub merged: AtomicBool,
}

/// The two factors of a low-rank update.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// `[rank, in]`.
    pub(super) a: Tensor,
    /// `[out, rank]`.
    pub(super) b: Tensor,
    pub(super) scaling: f64,
    pub(super) dropout: f64,
    pub(super) switches: Arc<Switches>,
}

impl Adapter {
    /// The same adapter, in the same memory.
    pub(super) fn shallow_clone(&self) -> Self {
        Self {
            a: self.a.shallow_clone(),
            b: self.b.shallow_clone(),
            scaling: self.scaling,
            dropout: self.dropout,
            switches: Arc::clone(&self.switches),
        }
    }

    /// `scaling * B A` `[out, in]`, the update of the weight.
    pub(super) fn delta(&self) -> Tensor {
        self.b.matmul(&self.a) * self.scaling
    }

    fn is_merged(&self) -> bool {
        self.switches.merged.load(Ordering::Relaxed)
    }

    /// The update of the output for `x` `[..., in]`: `[..., out]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let drops = self.dropout > 0.0 && self.switches.training.load(Ordering::Relaxed);
        let x = if drops { dropout(x, self.dropout) } else { x.shallow_clone() };
        (x.linear(&self.a, None::<Tensor>) * self.scaling).linear(&self.b, None::<Tensor>)
    }
}

/// The adapters of one linear layer, one for each equal part of its output; empty without LoRA. The layer
/// and the [`Lora`](super::Lora) of the model share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdapterSlot(Arc<Mutex<Vec<Option<Adapter>>>>);

impl AdapterSlot {
    /// Puts an adapter at `part` of `parts`.
    pub(super) fn insert(&self, part: usize, parts: usize, adapter: Adapter) -> Result<(), ()> {
        let mut adapters = self.lock();
        adapters.resize_with(parts, || None);
        if adapters[part].is_some() {
            return Err(());
        }
        adapters[part] = Some(adapter);
        Ok(())
    }

    /// `y` `[..., out]`, the layer's output for `x` `[..., in]`, with the updates of the adapters.
    pub(crate) fn apply(&self, x: &Tensor, y: Tensor) -> Tensor {
        let adapters = self.lock();
        let active = || adapters.iter().flatten().filter(|adapter| !adapter.is_merged());
        match adapters.as_slice() {
            _ if active().next().is_none() => y,
            [Some(only)] => y + only.forward(x),
            parts => {
                let outputs: Vec<Tensor> = y
                    .chunk(parts.len() as i64, -1)
                    .into_iter()
                    .zip(parts)
                    .map(|(y, adapter)| match adapter {
                        Some(adapter) => y + adapter.forward(x),
                        None => y,
                    })
                    .collect();
                Tensor::cat(&outputs, -1)
            }
        }
    }

    /// `weight` `[out, in]` with the updates of the adapters, for a layer whose weights are packed: its
    /// adapters are dropped.
    pub(crate) fn merge_into(&self, weight: &Tensor) -> Tensor {
        let mut adapters = self.lock();
        let parts = std::mem::take(&mut *adapters);
        if parts.iter().flatten().all(Adapter::is_merged) {
            return weight.shallow_clone();
        }
        let rows = weight.size()[0] / parts.len() as i64;
        let merged = weight.detach().copy();
        for (part, adapter) in parts.iter().enumerate() {
            if let Some(adapter) = adapter {
                let _ = merged.narrow(0, part as i64 * rows, rows).g_add_(&adapter.delta());
            }
        }
        merged
    }

    /// The adapters, which a panic in a forward pass leaves as they are.
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Adapter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
