//! Many processes that train one model: N of them give what one gives.
//!
//! The engine is PyTorch's own, c10d: Gloo between CPUs, NCCL between GPUs, so a run starts under whatever
//! starts PyTorch's.
//!
//! - [`Launch`]: what torchrun, srun, mpirun, Kubernetes or `cargo xtask train --nproc` tells a process of
//!   its place.
//! - [`ProcessGroup`]: the processes, and what they do together. One process alone is a group too, without a socket.
//! - [`GradientAverage`]: data parallelism (Li et al. 2020, "PyTorch Distributed"): gradients are averaged in
//!   buckets while the backward pass still runs.
//! - [`Contrastive`]: losses that compare the samples of all processes: gathered, local, or tile by tile
//!   round a ring.
//!
//! # The one rule of gradients
//! The loss of a run is the mean of its processes' losses, and gradients are averaged over the processes.
//! What crosses between processes inside a loss goes back as it went: a gathered row gets the *sum* of what
//! all processes want of it. Then no factor of the number of processes is left anywhere, which is where
//! others lose theirs; `tests/losses.rs` compares N processes with one for each loss.
//!
//! ```
//! use mm_dist::{Contrastive, ContrastiveConfig, ProcessGroup};
//! use tch::{Device, Kind, Tensor};
//!
//! let group = ProcessGroup::alone();
//! let x = Tensor::eye(4, (Kind::Float, Device::Cpu));
//! let loss = Contrastive::new(&group, ContrastiveConfig::default()).info_nce(&x, &x, &Tensor::from(3f32))?;
//! assert!(loss.double_value(&[]) < 1e-6);
//! assert_eq!((group.rank(), group.world()), (0, 1));
//! # Ok::<(), mm_dist::Error>(())
//! ```
//!
//! To add a loss over processes: a method in `contrastive.rs` that keeps to the rule, and a line in
//! `tests/losses.rs`.

mod contrastive;
mod error;
mod gradients;
mod launch;
mod process_group;
mod rendezvous;
mod slurm;

pub use contrastive::{Contrastive, ContrastiveConfig, Logits};
pub use error::{Error, Result};
pub use gradients::{GradientAverage, Overlap};
pub use launch::Launch;
pub use mm_sys::ReduceOp;
pub use process_group::{ProcessGroup, broadcast_together};
