//! What libtorch has and `tch` lacks, behind safe functions.
//!
//! A few C++ files (`shim/`) reach the entry points that training and fast inference need: the fused AdamW
//! step, CPU and CUDA autocast, inference mode, clearing a gradient, gradient checkpointing, gradients that
//! are known already, the state of generators, the processor's vector instructions, mapped files, linear
//! layers whose weights are laid out once for oneDNN, in floats or in int8, and c10d: the process groups of
//! PyTorch's own distributed training, Gloo and NCCL. This crate holds no policy: when to use which is for
//! `mm-core`.
//!
//! ```
//! use tch::{Kind, Tensor};
//! let x = Tensor::ones([2, 3], (Kind::Float, tch::Device::Cpu));
//! let y = mm_sys::inference_mode(|| &x * 2.0);
//! assert_eq!(y.sum(Kind::Float).double_value(&[]), 12.0);
//! ```
#![allow(unsafe_code)] // the one crate that may; each block says why it is sound

mod adamw;
mod c10d;
mod checkpointed;
mod cpu;
mod error;
mod int8;
mod known_gradients;
mod mapped;
mod memory;
mod modes;
mod packed;
mod reducer;
mod rng;

pub use adamw::{AdamWStep, fused_adamw};
pub use c10d::{Backend, C10dProcessGroup, ReduceOp, TcpStore};
pub use checkpointed::checkpointed;
pub use cpu::cpu_capability;
pub use error::{Error, Result};
pub use int8::Int8Linear;
pub use known_gradients::{grad_mode, scalar_with_gradients};
pub use mapped::MappedFile;
pub use memory::{clear_gradient, copy_from_bytes, filled};
pub use modes::{autocast_bf16, inference_mode, without_autocast};
pub use packed::{PackedLinear, PostOp};
pub use reducer::{Reduced, Reducer};
pub use rng::RngState;

/// libtorch's CPU generator is one a process: tests that draw from it, or let a checkpoint restore it, take
/// turns.
#[cfg(test)]
static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
