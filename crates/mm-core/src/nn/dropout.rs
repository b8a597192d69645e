//! Dropout.

use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};

/// Dropout (Srivastava et al. 2014): in training, elements are zero with the given probability, and the
/// others are divided by the probability to keep them. It is off until [`Dropout::set_training`]. Which they
/// are follows from libtorch's generator; on the CPU they are others than PyTorch's of the same seed.
#[derive(Debug, Default)]
pub struct Dropout {
    probability: f64,
    is_training: AtomicBool,
}

impl Dropout {
    /// Dropout with this probability, from 0 (included) to 1 (excluded).
    pub fn new(probability: f64) -> Self {
        Self { probability, is_training: AtomicBool::new(false) }
    }

    /// Turns dropout on or off. It stays on until the backward pass of a step is done, which with gradient
    /// checkpointing runs the forward pass again.
    pub fn set_training(&self, on: bool) {
        self.is_training.store(on, Ordering::Relaxed);
    }

    /// Whether elements are dropped.
    pub fn is_active(&self) -> bool {
        self.probability > 0.0 && self.is_training.load(Ordering::Relaxed)
    }

    /// Drops elements of `x`, of any shape.
    pub fn forward(&self, x: Tensor) -> Tensor {
        if self.is_active() { dropout(&x, self.probability) } else { x }
    }
}

/// Dropout of `x`, of any shape, by libtorch or, where it has one, by the faster form without a stored mask.
pub(crate) fn dropout(x: &Tensor, probability: f64) -> Tensor {
    match (x.device(), x.kind()) {
        (Device::Cpu, Kind::Float | Kind::BFloat16) => {
            mm_sys::dropout(x, probability).expect("the kind, the device and the probability are checked")
        }
        _ => x.dropout(probability, true),
    }
}
