//! Safe bindings to functions of libtorch that are missing in `tch`.
//!
//! A few C++ files (`shim/`) call the functions that training and fast inference need: the fused AdamW step,
//! CPU and CUDA autocast, inference mode, clearing of gradients, gradient checkpointing, scalars with known
//! gradients, dropout without a stored mask, generators and their states, vector instructions of the
//! processor, memory-mapped files, linear layers packed for oneDNN in floats or int8, packed and Winograd
//! convolutions, group normalization, and c10d: the process groups of PyTorch's distributed training, Gloo
//! and NCCL. The crate also sets the allocator of the process. It has no other policy: `mm-core` decides
//! which to use when.
//!
//! ```
//! use tch::{Kind, Tensor};
//! let x = Tensor::ones([2, 3], (Kind::Float, tch::Device::Cpu));
//! let y = mm_sys::inference_mode(|| &x * 2.0);
//! assert_eq!(y.sum(Kind::Float).double_value(&[]), 12.0);
//! ```
#![allow(unsafe_code)] // the only crate with unsafe code; each block has a SAFETY comment

mod adamw;
mod allocator;
mod c10d;
mod checkpointed;
mod conv;
mod cpu;
mod dropout;
mod error;
mod generator;
mod int8;
mod known_gradients;
mod mapped;
mod memory;
mod modes;
mod packed;
mod reducer;
mod rng;
mod winograd;

pub use adamw::{AdamWStep, fused_adamw};
pub use c10d::{Backend, C10dProcessGroup, ReduceOp, TcpStore};
pub use checkpointed::checkpointed;
pub use conv::{PackedConv, group_norm};
pub use cpu::cpu_capability;
pub use dropout::dropout;
pub use error::{Error, Result};
pub use generator::Generator;
pub use int8::Int8Linear;
pub use known_gradients::{grad_mode, scalar_with_gradients};
pub use mapped::MappedFile;
pub use memory::{clear_gradient, copy_from_bytes, filled};
pub use modes::{autocast_bf16, inference_mode, without_autocast};
pub use packed::{PackedLinear, PostOp};
pub use reducer::{Reduced, Reducer};
pub use rng::RngState;
pub use winograd::WinogradConv;

/// libtorch has one CPU generator a process: tests that draw from it or restore it lock this.
#[cfg(test)]
static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
